"""The 6-bit scales and mins of Q4_K and Q5_K: eight of each in twelve bytes.

Bytes 0-3: scales 0-3 (low 6 bits); 4-7: mins 0-3; 8-11: the low nibbles of scales 4-7 and, above them, of mins 4-7, whose upper two bits
are the top bits of bytes 0-3 and 4-7."""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u32x4
from ggpy.simd.vectors import bitcast, concat, constant, convert, i16x32, permute, u8x32, u32x4, u32x8

SCALE_LANES = (0, 1, 2, 3, 8, 9, 10, 11)
MIN_LANES = (4, 5, 6, 7, 12, 13, 14, 15)

_join = concat(u32x4)
_whole, _tops = permute(u32x8, [0, 1, 2, 2, 4, 5, 6, 6]), permute(u32x8, [0, 1, 0, 1, 4, 5, 4, 5])
_down, _low_bits = constant(u32x8, [0, 0, 0, 4] * 2), constant(u32x8, [0x3F3F3F3F, 0x3F3F3F3F, 0x0F0F0F0F, 0x0F0F0F0F] * 2)
_two, _top_bits = constant(u32x8, 2), constant(u32x8, [0, 0, 0x30303030, 0x30303030] * 2)
_bytes, _widen = bitcast(u32x8, u8x32), convert(u8x32, i16x32)


@inline
def packed_words(p, q):
    """i16x32 from the twelve bytes at p and at q (sixteen are read): for each, scales in SCALE_LANES, mins in MIN_LANES of its sixteen."""
    packed = _join(load_u32x4(p), load_u32x4(q))
    low = (_whole(packed) >> _down()) & _low_bits()
    return _widen(_bytes(low | ((_tops(packed) >> _two()) & _top_bits())))
