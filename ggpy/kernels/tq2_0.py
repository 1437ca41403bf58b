"""TQ2_0: 256 two-bit values as in Q2_K, f16 d; value = d * (q - 1)."""

from __future__ import annotations

from ggpy.kernels.bits import two_bits_128
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels


@inline
def values(w):
    return two_bits_128(w) + two_bits_128(w + 32)


linear, embed = superblock_kernels(values, block_bytes=66, step_at=64, center=1)
