"""Q2_K: sixteen bytes of 4-bit scale and 4-bit min, 256 two-bit values, f16 d, f16 dmin; value = d * scale * q - dmin * min.

Of each half of 128 values, byte l of its 32 bytes holds values l, l + 32, l + 64 and l + 96, two bits each.
"""

from __future__ import annotations

from ggpy.kernels.bits import two_bits_128
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_u8x16
from ggpy.simd.vectors import Vector, concat, convert, u8x16, u8x32, u8x64

i16x64 = Vector("i16", 64)
_twice, _both, _widen = concat(u8x32), concat(u8x16), convert(u8x64, i16x64)
_nibbles = bit_fields(u8x64, ([(0, 4, 0)] * 2 + [(4, 4, 0)] * 2) * 2)


@inline
def values(w):
    return two_bits_128(w + 16) + two_bits_128(w + 48)


@inline
def words(v, w):
    first, second = load_u8x16(v), load_u8x16(w)
    return _widen(_nibbles(_twice(_both(first, first), _both(second, second))))


linear, embed = superblock_kernels(
    values, words, block_bytes=84, group=16, step_at=80, scale_lanes=range(16), min_lanes=range(16, 32), n_words=32
)
