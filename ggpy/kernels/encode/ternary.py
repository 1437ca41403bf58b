"""Quants 0, 1, 2 of TQ1_0 and TQ2_0: the largest magnitude of 256 values becomes 2 or 0, halves round away from 1."""

from __future__ import annotations

from numba.core import types

from ggpy.kernels.encode.chunks import magnitude_bits
from ggpy.kernels.encode.rounding import half_away, splat_f32
from ggpy.kernels.options import inline
from ggpy.simd.lanes import larger, largest_lane
from ggpy.simd.memory import load_f32x16
from ggpy.simd.vectors import bitcast, constant, i32x16

_as_float = bitcast(types.int32, types.float32)
_zero, _one = constant(i32x16, 0), constant(i32x16, 1)


@inline
def largest_magnitude(source, count):
    """Of `count` float32, a multiple of sixteen."""
    most = _zero()
    for i in range(0, 4 * count, 64):
        most = larger(most, magnitude_bits(load_f32x16(source + i)))
    return _as_float(largest_lane(most))


@inline
def ternary_quants(source, inverse):
    """Sixteen, as int32."""
    return half_away(load_f32x16(source) * splat_f32(inverse)) + _one()
