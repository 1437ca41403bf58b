"""Q5_0: f16 scale, 32 fifth bits, 32 nibbles; value = d * (q - 16)."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.bits import nibbles_32, spread_bits
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u32


@inline
def values(w):
    return nibbles_32(w + 6) | spread_bits(load_u32(w + 2), np.uint8(16))


linear, embed = block32_kernels(values, block_bytes=22, center=16)
