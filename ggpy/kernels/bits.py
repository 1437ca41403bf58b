"""Nibbles and fifth bits of blocks of 32 values, low nibbles first, then high ones; two-bit values of super-blocks."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ggpy.kernels.options import inline
from ggpy.simd.bits import bit_fields, spread_bits_32, spread_bits_64
from ggpy.simd.memory import load_u8x16, load_u8x32, load_u32
from ggpy.simd.vectors import concat, u8x16, u8x32, u8x64

_twice, _join = concat(u8x16), concat(u8x32)
_fields_32 = bit_fields(u8x32, [(0, 4, 0)] * 2 + [(4, 4, 0)] * 2)
_fields_64 = bit_fields(u8x64, ([(0, 4, 0)] * 2 + [(4, 4, 0)] * 2) * 2)

_first, _last = bit_fields(u8x64, [(0, 2, 0)] * 4 + [(2, 2, 0)] * 4), bit_fields(u8x64, [(4, 2, 0)] * 4 + [(6, 2, 0)] * 4)


@inline
def nibbles_32(address):
    """Sixteen bytes to 32 values."""
    q = load_u8x16(address)
    return _fields_32(_twice(q, q))


@inline
def nibbles_64(first, second):
    """Sixteen bytes at each of two places to 64 values."""
    a, b = load_u8x16(first), load_u8x16(second)
    return _fields_64(_join(_twice(a, a), _twice(b, b)))


@inline
def fifth_bits_32(address):
    """16 where a bit of the four bytes is set."""
    return spread_bits_32(load_u32(address), np.uint8(16))


@inline
def fifth_bits_64(first, second):
    """16 where a bit of four bytes at each of two places is set."""
    bits = types.uint64(load_u32(first)) | (types.uint64(load_u32(second)) << types.uint64(32))
    return spread_bits_64(bits, np.uint8(16))


@inline
def two_bits_128(address):
    """Of 32 bytes, 128 values as two u8x64: byte l holds values l, l + 32, l + 64 and l + 96, from the lowest bits up."""
    q = load_u8x32(address)
    both = _join(q, q)
    return _first(both), _last(both)
