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
def values(w, c):
    q, bits = load_u8x32(w + 48 + 32 * c), load_u8x32(w + 16)
    low, all_bits = _nibbles(_twice(q, q)), _twice(bits, bits)
    if c == 0:
        return low | _top_0(all_bits)
    if c == 1:
        return low | _top_1(all_bits)
    if c == 2:
        return low | _top_2(all_bits)
    return low | _top_3(all_bits)


@inline
def words(v, w):
    return packed_words(v + 4, w + 4)


linear, embed = superblock_kernels(values, words, block_bytes=176, group=32, step_at=0, scale_lanes=SCALE_LANES, min_lanes=MIN_LANES)
