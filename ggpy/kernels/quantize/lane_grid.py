"""A format's grid in lanes: the nearest level, the multiples a sub-block may have, and first scales for what lies in lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ggpy.blocks.affine_grid import Grid
from ggpy.blocks.levels import LEVELS
from ggpy.blocks.search import Search
from ggpy.kernels.encode import affine, symmetric
from ggpy.kernels.encode.affine import affine_search
from ggpy.kernels.encode.levels import find_scales, nearest_of
from ggpy.kernels.encode.symmetric import symmetric_search
from ggpy.kernels.encode.weighted.positive import positive_search
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import maximum, minimum, round_even
from ggpy.simd.lanes import scratch, where_equal, where_less
from ggpy.simd.vectors import Vector, convert

_f32, _f16 = Vector("f32", LANES), Vector("f16", LANES)
_narrow, _widen = convert(_f32, _f16), convert(_f16, _f32)
_zero, _one, _infinite = wide_constant(0.0), wide_constant(1.0), wide_constant(np.inf)
_most_half, _least_half = wide_constant(65504.0), wide_constant(-65504.0)
_level_bound, _minus_level_bound = wide_constant(140.0), wide_constant(-140.0)


class LaneGrid(NamedTuple):
    """What kernels need of a grid.

    nearest(values) -> their levels, of the numbers a level stands for, float32. index(levels) -> which of the levels, as float32.
    first_scales(lanes, found): scale and offset of a sub-block, two vectors to `found`. lanes: values, weights, and room for as many
    vectors again; without offsets a scale may have either sign.
    unit(numbers, weights, found): the float16 whose multiples stand for a block's scales, one vector to `found`; the same for its mins.
    """

    nearest: Callable
    index: Callable
    first_scales: Callable
    unit: Callable
    unit_of_mins: Callable


@inline
def to_half(values):
    """Rounded to float16, of any finite size."""
    return _widen(_narrow(minimum(maximum(values, _least_half()), _most_half())))


@inline
def finite_or_zero(values):
    """0 in lanes that are NaN or infinite."""
    return where_equal(values - values, _zero(), values, _zero())


@inline
def inverse_of(scale):
    """1 / scale; 0 where that is not finite."""
    return finite_or_zero(_one() / scale)


def clamped(least: float, most: float) -> Callable:
    """clamped(-32, 31)(values): no less and no more; `least` for NaN."""
    low, high = wide_constant(least), wide_constant(most)

    @inline
    def clamp(values):
        return minimum(maximum(values, low()), high())

    return clamp


def lane_grid(grid: Grid, block_values: int) -> LaneGrid:
    """The functions for a format's grid."""
    n_sub = block_values // grid.sub_values
    on_ladder = grid.levels is not LEVELS
    nearest, index = _ladder(grid) if on_ladder else _uneven()
    first_scales = _uneven_scales if not on_ladder else _affine_scales(grid) if grid.has_mins else _symmetric_scales(grid)
    if not grid.has_sub_scales:
        return LaneGrid(nearest, index, first_scales, _keep, _keep)
    if grid.has_mins:
        return LaneGrid(nearest, index, first_scales, _positive_unit(n_sub, grid.scales[-1]), _positive_unit(n_sub, grid.mins[-1]))
    return LaneGrid(nearest, index, first_scales, _symmetric_unit(n_sub, -grid.scales[0]), _keep)


def _ladder(grid: Grid) -> tuple[Callable, Callable]:
    first, clamp = float(grid.levels[0]), clamped(float(grid.levels[0]), float(grid.levels[-1]))
    start = wide_constant(first)

    @inline
    def nearest(values):
        return round_even(clamp(values))

    @inline
    def index(levels):
        return levels - start()

    return nearest, index


def _uneven() -> tuple[Callable, Callable]:
    nearest_level = nearest_of(_f32, [float(level) for level in LEVELS])
    nearest_index = nearest_of(_f32, [float(i) for i in range(len(LEVELS))])

    @inline
    def nearest(values):
        return nearest_level(minimum(maximum(values, _minus_level_bound()), _level_bound()))

    return nearest, nearest_index


def _affine_scales(grid: Grid) -> Callable:
    largest = int(grid.levels[-1])
    find = affine_search(grid.sub_values, Search(largest=largest, first=-0.9, step=0.05, steps=37))
    fields = scratch(affine.FIELDS * VECTOR_BYTES)

    @inline
    def first_scales(lanes, found):
        at = fields()
        find(lanes, at, VECTOR_BYTES)
        store_wide(found, finite_or_zero(load_wide(at + affine.SCALE * VECTOR_BYTES)))
        store_wide(found + VECTOR_BYTES, finite_or_zero(load_wide(at + affine.LOW * VECTOR_BYTES)))

    return first_scales


def _symmetric_scales(grid: Grid) -> Callable:
    n_values = grid.sub_values
    find = symmetric_search(n_values, int(-grid.levels[0]))
    fields, size = scratch(symmetric.FIELDS * VECTOR_BYTES), n_values * VECTOR_BYTES

    @inline
    def first_scales(lanes, found):
        at = fields()
        for i in range(0, size, VECTOR_BYTES):
            store_wide(lanes + 2 * size + i, load_wide(lanes + i) * load_wide(lanes + size + i))
        find(lanes, at, VECTOR_BYTES)
        store_wide(found, finite_or_zero(load_wide(at + symmetric.SCALE * VECTOR_BYTES)))
        store_wide(found + VECTOR_BYTES, _zero())

    return first_scales


@inline
def _uneven_scales(lanes, found):
    find_scales(lanes, found)
    store_wide(found, finite_or_zero(load_wide(found)))
    store_wide(found + VECTOR_BYTES, _zero())


def _positive_unit(n_sub: int, most: int) -> Callable:
    find, room, size = positive_search(n_sub, most), scratch(4 * n_sub * VECTOR_BYTES), n_sub * VECTOR_BYTES

    @inline
    def unit(numbers, weights, found):
        lanes = room()
        for i in range(0, size, VECTOR_BYTES):
            number = load_wide(numbers + i)
            store_wide(lanes + i, where_less(number, _zero(), _zero(), number))
            store_wide(lanes + size + i, load_wide(weights + i))
        find(lanes, found)
        store_wide(found, to_half(finite_or_zero(load_wide(found))))

    return unit


def _symmetric_unit(n_sub: int, reach: int) -> Callable:
    find, size = symmetric_search(n_sub, reach, finite=False), n_sub * VECTOR_BYTES
    room, fields = scratch(3 * size), scratch(symmetric.FIELDS * VECTOR_BYTES)

    @inline
    def unit(numbers, weights, found):
        lanes, at = room(), fields()
        for i in range(0, size, VECTOR_BYTES):
            number, weight = load_wide(numbers + i), load_wide(weights + i)
            store_wide(lanes + i, number)
            store_wide(lanes + size + i, weight)
            store_wide(lanes + 2 * size + i, number * weight)
        find(lanes, at, VECTOR_BYTES)
        store_wide(found, to_half(finite_or_zero(load_wide(at + symmetric.SCALE * VECTOR_BYTES))))

    return unit


@inline
def _keep(numbers, weights, found):
    """The only number stands for itself."""
    store_wide(found, to_half(load_wide(numbers)))
