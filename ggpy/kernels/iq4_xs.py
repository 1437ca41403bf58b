"""IQ4_XS: f16 d, 6-bit scales of eight sub-blocks, 256 nibbles that name one of IQ4_NL's levels; value = d * (scale - 32) * level[q].

The scales' low nibbles lie in bytes 4-7, from the first sub-block up, their upper two bits in the two bytes before. Each sub-block has
sixteen bytes, low nibbles first.
"""

from __future__ import annotations

from ggpy.kernels.iq4_nl import CENTER, ENTRIES, SIGNED
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_u8x32, load_u16, load_u32
from ggpy.simd.tables import byte_table
from ggpy.simd.vectors import concat, constant, convert, i16x16, permute, splat, u8x32, u8x64, u32x8, u32x16

_twice = permute(u8x32, [*range(16), *range(16), *range(16, 32), *range(16, 32)])
_nibbles = bit_fields(u8x64, ([(0, 4, 0)] * 2 + [(4, 4, 0)] * 2) * 2)
_entry = byte_table(ENTRIES, u8x64)
_all, _join, _narrow = splat(u32x8), concat(u32x8), convert(u32x16, i16x16)
_low_down, _low_bits = constant(u32x16, [0, 4, 8, 12, 16, 20, 24, 28] * 2), constant(u32x16, 0x0F)
_top_down, _top_bits, _four = constant(u32x16, [0, 2, 4, 6, 8, 10, 12, 14] * 2), constant(u32x16, 0x03), constant(u32x16, 4)
_middle = constant(i16x16, 32)


@inline
def chunk(w):
    return _entry(_nibbles(_twice(load_u8x32(w))))


@inline
def values(w):
    return chunk(w + 8), chunk(w + 40), chunk(w + 72), chunk(w + 104)


@inline
def words(v, w):
    low, top = _join(_all(load_u32(v + 4)), _all(load_u32(w + 4))), _join(_all(load_u16(v + 2)), _all(load_u16(w + 2)))
    return _narrow(((low >> _low_down()) & _low_bits()) | (((top >> _top_down()) & _top_bits()) << _four())) - _middle()


linear, embed = superblock_kernels(
    values, words, block_bytes=136, scale_lanes=range(8), n_words=8, center=CENTER, largest=255, signed=SIGNED
)
