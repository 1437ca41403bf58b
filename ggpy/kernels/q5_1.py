"""Q5_1: f16 scale, f16 minimum, 32 fifth bits, 32 nibbles; value = d * q + m."""

from __future__ import annotations

from ggpy.kernels.bits import fifth_bits_32, fifth_bits_64, nibbles_32, nibbles_64
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline


@inline
def values(w):
    return nibbles_32(w + 8) | fifth_bits_32(w + 4)


@inline
def pair(w):
    return nibbles_64(w + 8, w + 32) | fifth_bits_64(w + 4, w + 28)


linear, embed = block32_kernels(values, pair, block_bytes=24, has_min=True)
