"""Q4_0: f16 scale, 32 nibbles; value = d * (q - 8)."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.bits import nibbles_32
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f16


@inline
def values(w):
    return nibbles_32(w + 2)


@inline
def scale(w):
    return load_f16(w)


@inline
def low(w, d):
    return d * np.float32(8)


linear, embed = block32_kernels(values, scale, low, block_bytes=18)
