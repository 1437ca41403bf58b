"""Q5_0: f16 scale, 32 fifth bits, 32 nibbles; value = d * (q - 16)."""

from __future__ import annotations

from ggpy.kernels.bits import fifth_bits_32, fifth_bits_64, nibbles_32, nibbles_64
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline


@inline
def values(w):
    return nibbles_32(w + 6) | fifth_bits_32(w + 2)


@inline
def pair(w):
    return nibbles_64(w + 6, w + 28) | fifth_bits_64(w + 2, w + 24)


linear, embed = block32_kernels(values, pair, block_bytes=22, center=16)
