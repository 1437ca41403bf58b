"""Q4_0: f16 scale, 32 nibbles; value = d * (q - 8)."""

from __future__ import annotations

from ggpy.kernels.bits import nibbles_32, nibbles_64
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline


@inline
def values(w):
    return nibbles_32(w + 2)


@inline
def pair(w):
    return nibbles_64(w + 2, w + 20)


linear, embed = block32_kernels(values, pair, block_bytes=18, center=8)
