"""Q4_1: f16 scale, f16 minimum, 32 nibbles; value = d * q + m."""

from __future__ import annotations

from ggpy.kernels.bits import nibbles_32
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline


@inline
def values(w):
    return nibbles_32(w + 4)


linear, embed = block32_kernels(values, block_bytes=20, has_min=True)
