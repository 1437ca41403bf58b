"""Q4_1: f16 scale, f16 minimum, 32 nibbles; value = d * q + m."""

from __future__ import annotations

from ggpy.kernels.bits import nibbles_32
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f16


@inline
def values(w):
    return nibbles_32(w + 4)


@inline
def scale(w):
    return load_f16(w)


@inline
def low(w, d):
    return -load_f16(w + 2)


linear, embed = block32_kernels(values, scale, low, block_bytes=20)
