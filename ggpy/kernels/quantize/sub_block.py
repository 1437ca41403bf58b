"""A sub-block in lanes: its values rounded one after the other, each moved by the errors before it, and its scale moved to where that is
done best."""

from __future__ import annotations

from collections.abc import Callable

from ggpy.blocks.affine_grid import Grid
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import Kernel, inline, kernel, outlined
from ggpy.kernels.quantize.lane_grid import clamped, inverse_of, to_half
from ggpy.simd.arithmetic import fma
from ggpy.simd.lanes import where_less
from ggpy.simd.memory import atomic_add, load_f32, load_i64, store
from ggpy.simd.vectors import Vector, convert

_f32, _i32, _u8 = Vector("f32", LANES), Vector("i32", LANES), Vector("u8", LANES)
_to_int, _to_bytes, store_bytes = convert(_f32, _i32), convert(_i32, _u8), store(_u8)
_zero = wide_constant(0.0)


@inline
def to_bytes(values):
    """Small whole numbers, float32, as uint8."""
    return _to_bytes(_to_int(values))


@inline
def fed(total, coefficients, errors, count):
    """total + the sum of `count` coefficients times vectors of errors."""
    second = _zero()
    for i in range(count // 2):
        total = fma(load_wide(errors + 2 * i * VECTOR_BYTES), splat_wide(load_f32(coefficients + 8 * i)), total)
        second = fma(load_wide(errors + (2 * i + 1) * VECTOR_BYTES), splat_wide(load_f32(coefficients + 8 * i + 4)), second)
    if count % 2 != 0:
        total = fma(load_wide(errors + (count - 1) * VECTOR_BYTES), splat_wide(load_f32(coefficients + 4 * count - 4)), total)
    return total + second


def sub_block_rounding(grid: Grid, nearest: Callable) -> tuple[Callable, Callable]:
    """scale_and_offset(units, found) and settle(...), for sub-blocks of a grid whose `nearest` level is given.

    scale_and_offset: of what is at `found`, multiples of `units` or the two themselves.

    settle takes addresses: of targets, of weights (errors are counted from these) and where errors and levels go, a vector for each value;
    of the feedback, row j for value j, `row_bytes` apart; of a float32 of importance for each value; of units, trials and what is found.
    """
    sub, in_units = grid.sub_values, grid.has_sub_scales
    snap_scale = clamped(float(grid.scales[0]), float(grid.scales[-1]))
    snap_min = clamped(float(grid.mins[0]), float(grid.mins[-1]))

    @outlined
    def run(targets, weights, errors, levels, coefficients, row_bytes, importance, scale, offset):
        """Squared error of a sub-block under a scale and an offset; its errors and levels are left behind."""
        inverse, cost = inverse_of(scale), _zero()
        for j in range(sub):
            at = VECTOR_BYTES * j
            target = fed(load_wide(targets + at), coefficients + row_bytes * j, errors, j)
            level = nearest((target - offset) * inverse)
            value = scale * level + offset
            off = target - value
            cost = fma(off * off, splat_wide(load_f32(importance + 4 * j)), cost)
            store_wide(levels + at, level)
            store_wide(errors + at, load_wide(weights + at) - value)
        return cost

    @inline
    def scale_of(units, first):
        return load_wide(units) * first if in_units else first

    @inline
    def offset_of(units, second):
        return _zero() - load_wide(units + VECTOR_BYTES) * second if in_units else second

    @inline
    def settle(targets, weights, errors, levels, coefficients, row_bytes, importance, units, trials, n_trials, found, least):
        """The two numbers at `found`, multiples of `units` or scale and offset, moved to where the sub-block's error is least, if that is
        below `least`. Returns the least error; errors and levels are those of what is then at `found`."""
        first, second = load_wide(found), load_wide(found + VECTOR_BYTES)
        if not in_units:
            first, second = to_half(first), to_half(second)
        for trial in range(n_trials):
            factor, step, low_step = load_f32(trials + 12 * trial), load_f32(trials + 12 * trial + 4), load_f32(trials + 12 * trial + 8)
            if in_units:
                next_first = snap_scale(first * splat_wide(factor) + splat_wide(step))
                next_second = snap_min(second + splat_wide(low_step))
            else:
                next_first = to_half(first * splat_wide(factor))
                next_second = to_half(second + first * splat_wide(low_step))
            scale, offset = scale_of(units, next_first), offset_of(units, next_second)
            cost = run(targets, weights, errors, levels, coefficients, row_bytes, importance, scale, offset)
            first, second = where_less(cost, least, next_first, first), where_less(cost, least, next_second, second)
            least = where_less(cost, least, cost, least)
        run(targets, weights, errors, levels, coefficients, row_bytes, importance, scale_of(units, first), offset_of(units, second))
        store_wide(found, first)
        store_wide(found + VECTOR_BYTES, second)
        return least

    @inline
    def scale_and_offset(units, found):
        return scale_of(units, load_wide(found)), offset_of(units, load_wide(found + VECTOR_BYTES))

    return scale_and_offset, settle


def group_kernel(do_group: Callable, words: tuple[str, ...]) -> Kernel:
    """The kernel whose threads take one group of LANES rows after the other: do_group(args, lane), `lane` in bytes from the first row on.

    words: of its arguments, "counter", which counts the groups taken, and "groups", how many there are, among them.
    """
    counter_at, groups_at = 8 * words.index("counter"), 8 * words.index("groups")

    @kernel
    def take_groups(args, ith, crew):
        counter, groups = load_i64(args + counter_at), load_i64(args + groups_at)
        group = atomic_add(counter, 1)
        while group < groups:
            do_group(args, VECTOR_BYTES * group)
            group = atomic_add(counter, 1)

    return take_groups
