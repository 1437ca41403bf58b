"""Q4_K: f16 d, f16 dmin, 6-bit scales and mins of eight sub-blocks, 256 nibbles; value = d * scale * q - dmin * min."""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.kernels.packed_scales import MIN_LANES, SCALE_LANES, packed_words
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_u8x32
from ggpy.simd.vectors import concat, u8x32, u8x64

_twice, _nibbles = concat(u8x32), bit_fields(u8x64, [(0, 4, 0)] * 4 + [(4, 4, 0)] * 4)


@inline
def chunk(w):
    q = load_u8x32(w)
    return _nibbles(_twice(q, q))


@inline
def values(w):
    return chunk(w + 16), chunk(w + 48), chunk(w + 80), chunk(w + 112)


@inline
def words(v, w):
    return packed_words(v + 4, w + 4)


linear, embed = superblock_kernels(values, words, block_bytes=144, group=32, step_at=0, scale_lanes=SCALE_LANES, min_lanes=MIN_LANES)
