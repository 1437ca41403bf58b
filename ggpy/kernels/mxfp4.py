"""MXFP4: a byte of exponent, 32 four-bit floats in nibbles, doubled to be integers; value = 2^(e - 128) * doubled[q]."""

from __future__ import annotations

from ggpy.blocks.fp4 import DOUBLED
from ggpy.kernels.bits import nibbles_32, nibbles_64
from ggpy.kernels.block32 import block32_kernels
from ggpy.kernels.options import inline
from ggpy.simd.lanes import where_less
from ggpy.simd.memory import gather, load_u8x64
from ggpy.simd.tables import byte_table
from ggpy.simd.target import target
from ggpy.simd.vectors import Vector, bitcast, constant, convert, extract, f32x4, f32x16, permute, shuffle, u8x32, u8x64

BYTES, CENTER = 17, 12
SMALLEST = 0x00200000  # the bits of 2^-128, which is subnormal, as 2^-127 is

_entry_32, _entry_64 = (byte_table([int(value) + CENTER for value in DOUBLED], vector) for vector in (u8x32, u8x64))
_of_eight, _of_two, _lane = gather(Vector("u8", 8)), gather(Vector("u8", 2)), extract(f32x4)
_twice_eight, _twice_two = permute(Vector("u8", 8), [i // 2 for i in range(16)]), permute(Vector("u8", 2), [0, 0, 1, 1])
_from_places = shuffle(u8x64, [BYTES * (i // 2) for i in range(16)])


def powers(floats: Vector):
    """power(e) -> 2^(e - 128) in float lanes, of as many u8 lanes."""
    bytes_, integers = Vector("u8", floats.lanes), Vector("u32", floats.lanes)
    widen, as_floats = convert(bytes_, integers), bitcast(integers, floats)
    one, two, exponent, smallest = (constant(integers, n) for n in (1, 2, 23, SMALLEST))

    @inline
    def power(e):
        wide = widen(e)
        return as_floats(where_less(wide, two(), smallest() << wide, (wide - one()) << exponent()))

    return power


_power_16, _power_4 = powers(f32x16), powers(f32x4)


@inline
def values(w):
    return _entry_32(nibbles_32(w + 1))


@inline
def pair(w):
    return _entry_64(nibbles_64(w + 1, w + 1 + BYTES))


@inline
def gathered(w):
    return _power_16(_twice_eight(_of_eight(w, BYTES)))


@inline
def permuted(w):
    return _power_16(_from_places(load_u8x64(w), load_u8x64(w + 64)))


eight = permuted if target().has_byte_permute else gathered


@inline
def two(w):
    return _power_4(_twice_two(_of_two(w, BYTES)))


@inline
def one(w):
    return _lane(_power_4(_twice_two(_of_two(w, 0))), 0)


linear, embed = block32_kernels(values, pair, block_bytes=BYTES, center=CENTER, scales=(eight, two, one))
