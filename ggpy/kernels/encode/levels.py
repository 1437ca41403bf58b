"""The uneven levels of IQ4_NL and IQ4_XS: the search of `ggpy.blocks.levels`, a lane for each block of 32, and the nearest level.

Of two levels a value belongs to the upper one from the middle between them on: ggml compares both distances in float32, which are exact
near the middle. AVX-512 finds the level by two looks into tables: a bin a little narrower than the closest middles holds at most one of
them, so the level below, the level above and that middle are known. Elsewhere the value is compared with all fifteen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks.levels import LEVELS, REACH
from ggpy.blocks.search import NOTHING
from ggpy.kernels.encode.nibbles import store_nibbles
from ggpy.kernels.encode.rounding import splat_f32
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute, maximum, minimum
from ggpy.simd.lanes import look_up, where_less
from ggpy.simd.memory import load_f32x16
from ggpy.simd.target import target
from ggpy.simd.vectors import Vector, constant, convert, f32x16, i32x16

SIZE = 32 * VECTOR_BYTES  # value 0..31 of every block

_MIDDLES = [float(middle) for middle in (LEVELS[1:] + LEVELS[:-1]) / 2]
_BINS, _BIN, _LOWEST = 32, 11.4, -146.4  # how many, how wide, where the first begins; values of trials lie within 134 of zero
_BOUND = 140.0


def _bins() -> tuple[list[float], list[int]]:
    """For each bin the middle in it (past its end where there is none) and how many lie below it."""
    starts = [_LOWEST + _BIN * i for i in range(_BINS)]
    inside = [[m for m in _MIDDLES if start <= m < start + _BIN] for start in starts]
    assert all(len(found) <= 1 for found in inside) and all(abs((m - _LOWEST) % _BIN - _BIN / 2) < _BIN / 2 - 1 for m in _MIDDLES)
    return [found[0] if found else np.inf for found in inside], [sum(m < start for m in _MIDDLES) for start in starts]


def nearest_of(vector: Vector, names: list[float]) -> Callable:
    """nearest_of(f32x16, names)(values) -> for each lane, a value within _BOUND of zero, the name of its nearest level."""
    if target().lowering != "avx512-vnni":
        return _nearest_by_comparing(vector, names)
    index = Vector("i32", vector.lanes)
    middles, below = _bins()
    middle_of, low_of = look_up(middles, index), look_up([names[n] for n in below], index)
    high_of = look_up([names[min(n + 1, len(names) - 1)] for n in below], index)
    per_bin, start = constant(vector, 1 / _BIN), constant(vector, -_LOWEST / _BIN)
    truncated = convert(vector, index)

    @inline
    def nearest(values):
        i = truncated(values * per_bin() + start())
        return where_less(values, middle_of(i), low_of(i), high_of(i))

    return nearest


def _nearest_by_comparing(vector: Vector, names: list[float]) -> Callable:
    def step(before: Callable, middle: float, name: float) -> Callable:
        bound, named = constant(vector, middle), constant(vector, name)

        @inline
        def nearest(values):
            return where_less(values, bound(), before(values), named())

        return nearest

    first = constant(vector, names[0])

    @inline
    def lowest(values):
        return first()

    nearest = lowest
    for middle, name in zip(_MIDDLES, names[1:], strict=True):
        nearest = step(nearest, middle, name)
    return nearest


_zero, _one, _never, _nothing = wide_constant(0.0), wide_constant(1.0), wide_constant(-np.inf), wide_constant(float(NOTHING))
_nearest = nearest_of(Vector("f32", LANES), [float(level) for level in LEVELS])
_nearest_index = nearest_of(f32x16, [float(i) for i in range(len(LEVELS))])
_to_i32 = convert(f32x16, i32x16)
_bound, _minus_bound = constant(f32x16, _BOUND), constant(f32x16, -_BOUND)
FIRST = np.float32(LEVELS[0])


@inline
def _sums(lanes, inverse):
    """Weighted sums of level * x and level * level per lane."""
    sum_qx, sum_q2 = _zero(), _zero()
    for i in range(0, SIZE, VECTOR_BYTES):
        x = load_wide(lanes + i)
        q = _nearest(inverse * x)
        wq = load_wide(lanes + SIZE + i) * q
        sum_qx, sum_q2 = sum_qx + wq * x, sum_q2 + wq * q
    return sum_qx, sum_q2


@inline
def find_scales(lanes, found):
    """A vector of scales. lanes: values, weights, 32 vectors each. What is below NOTHING is computed with a peak of 1."""
    peak, most = _zero(), _zero()
    for i in range(0, SIZE, VECTOR_BYTES):
        x = load_wide(lanes + i)
        peak, most = where_less(most, absolute(x), x, peak), where_less(most, absolute(x), absolute(x), most)
    peak = where_less(most, _nothing(), _one(), peak)

    sum_qx, sum_q2 = _sums(lanes, _one() / ((_zero() - peak) / splat_wide(FIRST)))
    scale = where_less(_zero(), sum_q2, sum_qx / sum_q2, _zero())
    best = scale * sum_qx
    for k in range(-REACH, REACH + 1):
        sum_qx, sum_q2 = _sums(lanes, splat_wide(np.float32(k) + FIRST) / peak)
        explained, bar = where_less(_zero(), sum_q2, sum_qx * sum_qx, _never()), best * sum_q2
        scale = where_less(bar, explained, sum_qx / sum_q2, scale)
        best = where_less(bar, explained, scale * sum_qx, best)
    store_wide(found, where_less(most, _nothing(), _zero(), scale))


@inline
def _indices(source, inverse):
    """Of sixteen values; the last level for NaN."""
    values = splat_f32(inverse) * load_f32x16(source)
    return _to_i32(_nearest_index(maximum(minimum(values, _bound()), _minus_bound())))


@inline
def store_levels(source, target, inverse):
    """Sixteen bytes of a block of 32 values."""
    store_nibbles(target, _indices(source, inverse), _indices(source + 64, inverse))
