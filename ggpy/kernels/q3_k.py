"""Q3_K: 256 third bits, 256 two-bit values, sixteen 6-bit scales in twelve bytes, f16 d; value = d * (scale - 32) * (q - 4).

Bit 4h + j of byte l of the third bits belongs to value l + 32 j of half h; two-bit values lie as in Q2_K. Scales: the low nibbles of
sixteen in bytes 0-7 (0-7 low, 8-15 high), their upper two bits in bytes 8-11, for scales s, s + 4, s + 8, s + 12 from the lowest up."""

from __future__ import annotations

from ggpy.kernels.bits import two_bits_128
from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.bits import bit_fields
from ggpy.simd.memory import load_u8x32, load_u32x4
from ggpy.simd.vectors import bitcast, concat, constant, convert, i16x32, permute, u8x32, u8x64, u32x4, u32x8

_twice = concat(u8x32)
_top_0, _top_1, _top_2, _top_3 = (bit_fields(u8x64, [(2 * c, 1, 2)] * 4 + [(2 * c + 1, 1, 2)] * 4) for c in range(4))

_join = concat(u32x4)
_lows, _tops = permute(u32x8, [1, 2, 1, 2, 5, 6, 5, 6]), permute(u32x8, [3] * 4 + [7] * 4)
_low_down, _low_bits = constant(u32x8, [0, 0, 4, 4] * 2), constant(u32x8, 0x0F0F0F0F)
_top_down, _top_bits, _four = constant(u32x8, [0, 2, 4, 6] * 2), constant(u32x8, 0x03030303), constant(u32x8, 4)
_bytes, _widen, _middle = bitcast(u32x8, u8x32), convert(u8x32, i16x32), constant(i16x32, 32)


@inline
def values(w):
    bits = load_u8x32(w)
    top = _twice(bits, bits)
    (a, b), (c, d) = two_bits_128(w + 32), two_bits_128(w + 64)
    return a | _top_0(top), b | _top_1(top), c | _top_2(top), d | _top_3(top)


@inline
def words(v, w):
    packed = _join(
        load_u32x4(v + 92), load_u32x4(w + 92)
    )  # the twelve bytes are lanes 1 to 3 of four, so that nothing behind the block is read
    low = (_lows(packed) >> _low_down()) & _low_bits()
    top = ((_tops(packed) >> _top_down()) & _top_bits()) << _four()
    return _widen(_bytes(low | top)) - _middle()


linear, embed = superblock_kernels(values, words, block_bytes=110, group=16, step_at=108, scale_lanes=range(16), center=4)
