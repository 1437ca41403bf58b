"""Vectors that hold a value of many sub-blocks, one to a lane: two registers of AVX-512, so that one works while the other waits."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.encode.rounding import MAGIC
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute, round_even
from ggpy.simd.lanes import lanes_less, larger, smaller, transpose
from ggpy.simd.memory import load, store
from ggpy.simd.target import target
from ggpy.simd.vectors import Vector, bitcast, constant, convert, splat

LANES = 32 if target().lowering == "avx512-vnni" else 16  # elsewhere registers are too few for two
VECTOR_BYTES = 4 * LANES
ALL_LANES = (1 << LANES) - 1

_f32, _i32, _u32 = Vector("f32", LANES), Vector("i32", LANES), Vector("u32", LANES)
load_wide, store_wide = load(_f32), store(_f32)
splat_wide = splat(_f32)

_as_int, _as_float, _to_float = bitcast(_f32, _i32), bitcast(_i32, _f32), convert(_i32, _f32)
_as_unsigned, _unsigned_as_float = bitcast(_i32, _u32), bitcast(_u32, _f32)
_magic, _mantissa, _zero = constant(_f32, float(MAGIC)), constant(_i32, 0x007FFFFF), constant(_i32, 0)
_exponent = constant(_i32, 0x4B000000)  # of 2**23
_BIAS = 0x00400000
_bias, _byte = constant(_i32, _BIAS), constant(_i32, 0xFF)


def wide_constant(value: float):
    """wide_constant(1.0)() -> a vector with `value` in every lane."""
    return constant(_f32, value)


def all_below(limit: float):
    """all_below(8.0)(values) -> whether the magnitudes of all lanes are below the limit; NaN is not."""
    bound = wide_constant(limit)

    @inline
    def below(values):
        return lanes_less(absolute(values), bound()) == ALL_LANES

    return below


@inline
def to_lanes(source, n_bytes, stride, target):
    """LANES rows of `n_bytes` float32, a multiple of sixteen of them, become a vector for each column; a row begins `stride` bytes after
    the one before."""
    for first in range(0, LANES, 16):
        rows = source + first * stride
        for i in range(0, n_bytes, 64):
            transpose(rows + i, rows + 8 * stride + i, stride, target + VECTOR_BYTES // 4 * i + 4 * first, VECTOR_BYTES)


def rounding(least: int, largest: int):
    """rounding(0, 15)(values) -> `nearest_int` of any values, clamped to 0..15, as float32.

    The mantissa bits are clamped and read as a float 12582912 too large.
    """
    lowest, highest = constant(_i32, _BIAS + least), constant(_i32, _BIAS + largest)

    @inline
    def rounded(values):
        bits = _as_int(values + _magic()) & _mantissa()
        return _as_float(larger(smaller(bits, highest()), lowest()) | _exponent()) - _magic()

    return rounded


def capped_rounding(largest: int):
    """capped_rounding(15)(values) -> `nearest_int` of any values, at most 15, as float32."""
    highest = constant(_i32, _BIAS + largest)

    @inline
    def rounded(values):
        return _to_float(smaller(_as_int(values + _magic()) & _mantissa(), highest()) - _bias())

    return rounded


@inline
def byte_rounding(values):
    """The low eight bits of `nearest_int`, 0..255, as float32."""
    return _to_float(((_as_int(values + _magic()) & _mantissa()) - _bias()) & _byte())


def small_rounding(largest: int):
    """`rounding` from 0 on, of values whose magnitudes are below 2**21.

    Clamped are the bits: those of floats order as the floats do where they are not negative, and are negative where they are. That takes
    two instructions less and leaves the units that add to the sums.
    """
    highest = constant(_i32, _float_bits(largest, np.int32))

    @inline
    def rounded(values):
        return _as_float(larger(smaller(_as_int(round_even(values)), highest()), _zero()))

    return rounded


def signed_rounding(least: int, largest: int):
    """signed_rounding(-32, 31)(values) -> rounded to nearest even and clamped, float32, of values whose magnitudes are below 2**21.

    As in `small_rounding`; as unsigned integers, the bits of negative floats order as their magnitudes do, above all others.
    """
    highest, lowest = constant(_i32, _float_bits(largest, np.int32)), constant(_u32, _float_bits(least, np.uint32))

    @inline
    def rounded(values):
        capped = smaller(_as_int(round_even(values)), highest())
        return _unsigned_as_float(smaller(_as_unsigned(capped), lowest()))

    return rounded


def _float_bits(value: int, kind: type[np.int32] | type[np.uint32]) -> int:
    return int(np.float32(value).view(kind))
