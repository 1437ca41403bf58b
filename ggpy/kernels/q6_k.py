"""Q6_K: 256 low nibbles, 256 upper two bits, sixteen int8 scales, f16 d; value = d * scale * (q - 32).

Of each half of 128 values, 64 bytes hold the low nibbles (first 64 values) and high nibbles (last 64); byte l of its 32 bytes of upper bits
holds, two bits each, those of values l, l + 32, l + 64 and l + 96.
"""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_i8x16, load_u8x32, load_u8x64
from ggpy.simd.vectors import concat, convert, i8x16, i8x32, i16x32, u8x32, u8x64

_twice, _join, _widen = concat(u8x32), concat(i8x16), convert(i8x32, i16x32)
_low, _high = bit_fields(u8x64, [(0, 4, 0)]), bit_fields(u8x64, [(4, 4, 0)])
_first, _last = bit_fields(u8x64, [(0, 2, 4)] * 4 + [(2, 2, 4)] * 4), bit_fields(u8x64, [(4, 2, 4)] * 4 + [(6, 2, 4)] * 4)


@inline
def half(low, top):
    q, bits = load_u8x64(low), load_u8x32(top)
    both = _twice(bits, bits)
    return _low(q) | _first(both), _high(q) | _last(both)


@inline
def values(w):
    return half(w, w + 128) + half(w + 64, w + 160)


@inline
def words(v, w):
    return _widen(_join(load_i8x16(v + 192), load_i8x16(w + 192)))


linear, embed = superblock_kernels(values, words, block_bytes=210, group=16, step_at=208, scale_lanes=range(16), center=32)
