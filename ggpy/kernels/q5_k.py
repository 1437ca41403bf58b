"""Q5_K: as Q4_K, with 256 fifth bits before the nibbles: bit j of byte i belongs to value i of sub-block j."""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.kernels.packed_scales import MIN_LANES, SCALE_LANES, packed_words
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_u8x32
from ggpy.simd.vectors import concat, u8x32, u8x64

_twice, _nibbles = concat(u8x32), bit_fields(u8x64, [(0, 4, 0)] * 4 + [(4, 4, 0)] * 4)
_top_0, _top_1, _top_2, _top_3 = (bit_fields(u8x64, [(2 * c, 1, 4)] * 4 + [(2 * c + 1, 1, 4)] * 4) for c in range(4))


@inline
def chunk(w):
    q = load_u8x32(w)
    return _nibbles(_twice(q, q))


@inline
def values(w):
    bits = load_u8x32(w + 16)
    top = _twice(bits, bits)
    return chunk(w + 48) | _top_0(top), chunk(w + 80) | _top_1(top), chunk(w + 112) | _top_2(top), chunk(w + 144) | _top_3(top)


@inline
def words(v, w):
    return packed_words(v + 4, w + 4)


linear, embed = superblock_kernels(values, words, block_bytes=176, group=32, step_at=0, scale_lanes=SCALE_LANES, min_lanes=MIN_LANES)
