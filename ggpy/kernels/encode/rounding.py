"""Float to integer in vectors of sixteen, bit for bit as `ggpy.blocks.rounding`; no multiplication meets an addition in one rounding."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import copy_sign, where_less
from ggpy.simd.vectors import bitcast, constant, convert, f32x16, i32x16, splat, u8x16

_as_int = bitcast(f32x16, i32x16)
_scalar_as_int = bitcast(types.float32, types.int32)
_to_i32 = convert(f32x16, i32x16)
_zero = constant(f32x16, 0.0)
_int32_limit = constant(f32x16, 2.0**31)
_below_half = constant(f32x16, float(np.float32(0.49999997)))
MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves the rounded integer in the low mantissa bits
_magic = constant(f32x16, float(MAGIC))
_mantissa = constant(i32x16, 0x007FFFFF)
_bias = constant(i32x16, 0x00400000)

splat_f32 = splat(f32x16)
splat_i32 = splat(i32x16)
to_u8 = convert(i32x16, u8x16)
ONE = np.float32(1)


@inline
def truncated(values):
    """int32, rounded towards zero; 0 for NaN and what int32 cannot hold."""
    return _to_i32(where_less(absolute(values), _int32_limit(), values, _zero()))


@inline
def half_away(values):
    """int32, halves rounded away from zero; 0 for NaN and what int32 cannot hold."""
    return truncated(values + copy_sign(_below_half(), values))


@inline
def nearest_int(values):
    """int32, rounded to nearest even, for |values| < 2**22; NaN gives 0 and Inf -2**22, by the bits of the sum."""
    return (_as_int(values + _magic()) & _mantissa()) - _bias()


@inline
def nearest_scalar(value):
    """`nearest_int` of one float32."""
    return (_scalar_as_int(value + MAGIC) & 0x007FFFFF) - 0x00400000


@inline
def reciprocal(scale):
    """1 / scale, 0 where scale is 0; a scalar."""
    return ONE / scale if scale != 0 else np.float32(0)
