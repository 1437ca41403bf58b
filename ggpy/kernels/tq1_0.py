"""TQ1_0: 256 ternary digits, five to a byte in 48 bytes and four in another 4, f16 d; value = d * (digit - 1).

A byte is a fraction of 256 whose digits come out one after the other: three times it, of which the part above 256 is the digit and the rest
goes on. Digit n of the first 32 bytes is value 32 n + byte; of the next sixteen 160 + 16 n + byte; of the last four 240 + 4 n + byte.
"""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.kernels.superblock import superblock_kernels
from ggpy.simd.lanes import where_less
from ggpy.simd.memory import load, load_u8x16, load_u8x32
from ggpy.simd.vectors import Vector, concat, constant, convert, permute, shuffle, u8x16, u8x32, u8x64, u16x16

u8x4 = Vector("u8", 4)
_load_four, _four_times = load(u8x4), permute(u8x4, [0, 1, 2, 3] * 4)
_widen, _narrow, _powers = convert(u8x16, u16x16), convert(u16x16, u8x16), constant(u16x16, [3**n for n in range(4) for _ in range(4)])
_join_16, _join_32 = concat(u8x16), concat(u8x32)
_below_one, _below_two, _none, _one, _two = (constant(u8x64, n) for n in (85, 170, 0, 1, 2))
_first_32, _of_sixteen = shuffle(u8x64, [*range(32), *range(64, 96)]), shuffle(u8x64, [*range(32, 48), *range(96, 112)])
_whole, _last_32 = permute(u8x64, range(32)), shuffle(u8x64, [*range(32, 48), *range(112, 128)])


@inline
def digit(rest):
    """The first digit of each fraction of 256: 1 from a third on, 2 from two thirds on."""
    return where_less(_below_two(), rest, _two(), where_less(_below_one(), rest, _one(), _none()))


@inline
def values(w):
    four = _narrow(_widen(_four_times(_load_four(w + 48))) * _powers())  # whose digit n is the first of lanes 4 n and up
    rest = _join_32(load_u8x32(w), _join_16(load_u8x16(w + 32), four))
    a = digit(rest)
    rest = rest + rest + rest
    b = digit(rest)
    rest = rest + rest + rest
    c = digit(rest)
    rest = rest + rest + rest
    d = digit(rest)
    rest = rest + rest + rest
    e = digit(rest)
    return _first_32(a, b), _first_32(c, d), _join_32(_whole(e), _of_sixteen(a, b)), _join_32(_of_sixteen(c, d), _last_32(e, a))


linear, embed = superblock_kernels(values, block_bytes=54, step_at=52, center=1)
