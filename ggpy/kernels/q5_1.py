"""Q5_1: f16 scale, f16 minimum, 32 fifth bits, 32 nibbles; value = d * q + m."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.bits import nibbles_32, spread_bits
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u32


@inline
def values(w):
    return nibbles_32(w + 8) | spread_bits(load_u32(w + 4), np.uint8(16))


linear, embed = block32_kernels(values, block_bytes=24, has_min=True)
