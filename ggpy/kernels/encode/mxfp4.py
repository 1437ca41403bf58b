"""MXFP4: the exponent of the largest magnitude, as ggml's float32 logarithm has it, less 2; the nearest four-bit float to each value.

Distances of values from the middle between two floats are exact, so that comparing with the middles finds what ggml finds by comparing
distances; a value in the middle goes to the smaller magnitude. A logarithm just below a whole number k may round up to it: those of the
last 2**p * ln 2 floats below 2**k do, where the float32 just below k (above -k, where it is negative) are 2**(p - 23) apart.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from ggpy.blocks.mxfp4 import BIAS, LARGEST_EXPONENT, MXFP4
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.nibbles import store_nibbles
from ggpy.kernels.encode.rounding import splat_f32
from ggpy.kernels.encode.ternary import largest_magnitude
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import smaller, where_less
from ggpy.simd.memory import load_f32x16, store_u8
from ggpy.simd.vectors import bitcast, constant, f32x16, i32x16, splat

_MIDDLES = (0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0)  # between magnitudes, doubled as ggml has them
VALUES = MXFP4.block_values
OVERFLOWING, LAST_FINITE = BIAS + 128 - LARGEST_EXPONENT, 5  # of the largest exponent, the highest code of a finite magnitude

_scalar_bits, _scalar_float = bitcast(types.float32, types.int32), bitcast(types.int32, types.float32)
_none, _one, _sign, _zero = constant(i32x16, 0), constant(i32x16, 1), constant(i32x16, 8), constant(f32x16, 0.0)
_splat_i32 = splat(i32x16)


@inline
def _rounded_up(exponent):
    """How many floats below 2**(exponent + 1) have a logarithm that rounds up to exponent + 1."""
    distance = exponent if exponent >= 0 else -exponent - 1
    if distance == 0:
        return 0
    p = 0
    while distance >= 2 << p:
        p += 1
    return int(0.6931471805599453 * (1 << p))


@inline
def _exponent(magnitude):
    """floor(log2(magnitude)), the logarithm in float32, of a positive float32."""
    shift = 0
    if magnitude < np.float32(2.0**-126):
        magnitude, shift = magnitude * np.float32(2.0**24), -24
    bits = np.int64(_scalar_bits(magnitude))
    exponent = (bits >> 23) - BIAS + shift
    return exponent + 1 if (1 << 23) - (bits & 0x7FFFFF) <= _rounded_up(exponent) else exponent


@inline
def _half_power(e):
    """2**(e - 128), the scale of doubled magnitudes, for e in 0..255."""
    return _scalar_float(np.int32(0x00200000 << e if e < 2 else (e - 1) << 23))


def _counting(before, middle: float):
    bound = constant(f32x16, middle)

    @inline
    def count(magnitudes, scale):
        return before(magnitudes, scale) + where_less(scale * bound(), magnitudes, _one(), _none())

    return count


@inline
def _no_count(magnitudes, scale):
    return _none()


_count = _no_count
for _middle in _MIDDLES:
    _count = _counting(_count, _middle)


@inline
def _codes(source, scale, highest):
    """Of sixteen values; 0, and not -0, for what rounds to it."""
    x = load_f32x16(source)
    code = smaller(_count(absolute(x), splat_f32(scale)), _splat_i32(highest))
    signed = where_less(_none(), code, code + _sign(), code)
    return where_less(x, _zero(), signed, code)


@inline
def _encode_block(source, target, count):
    most = largest_magnitude(source, VALUES)
    e = (_exponent(most) - LARGEST_EXPONENT + BIAS) & 0xFF if most > 0 else 0
    scale = _half_power(e)
    highest = np.int32(LAST_FINITE if e == OVERFLOWING else 7)
    store_u8(target, np.uint8(e))
    store_nibbles(target + 1, _codes(source, scale, highest), _codes(source + 64, scale, highest))


encode = encoder(_encode_block, MXFP4.block_values, MXFP4.block_bytes)
