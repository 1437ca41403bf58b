"""The search for scale and min of sub-blocks, `ggpy.blocks.search.affine_scale`, a lane for each.

Each lane does what the reference does for its sub-block, one value after the other, so every sum has ggml's order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks.search import Search
from ggpy.kernels.encode.rounding import nearest_int, splat_f32, splat_i32, to_u8
from ggpy.kernels.encode.wide import (
    VECTOR_BYTES,
    all_below,
    load_wide,
    rounding,
    small_rounding,
    splat_wide,
    store_wide,
    wide_constant,
)
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import lanes_less, larger, smaller, where_less
from ggpy.simd.memory import load_f32, load_f32x16, store_u8x16
from ggpy.simd.vectors import constant, i32x16

SCALE, LOW, INVERSE, ANCHOR, FIELDS = range(5)
"""What a search finds: scale, min (at most 0), and what the kept quants were rounded with: inverse scale, min."""

_zero, _one, _infinite = wide_constant(0.0), wide_constant(1.0), wide_constant(np.inf)
_are_small = all_below(2.0**21)
_no_quant = constant(i32x16, 0)


def affine_search(n_values: int, search: Search) -> Callable:
    """affine_search(32, SEARCH)(lanes, found, stride): the search in sub-blocks of `n_values`.

    lanes: values, weights, room for trial quants, `n_values` vectors each. The vector of found field k goes to `found` + k * stride.
    """
    n_trials, size = search.steps, n_values * VECTOR_BYTES
    first, step, most = np.float32(search.first), np.float32(search.step), np.float32(search.largest)
    by_magnitude = search.absolute

    @inline
    def total_error(lanes, scale, low):
        """Weighted error of scale * trial quants + low, per lane."""
        total = _zero()
        for i in range(0, size, VECTOR_BYTES):
            off = (scale * load_wide(lanes + 2 * size + i) + low) - load_wide(lanes + i)
            if by_magnitude:
                total = total + load_wide(lanes + size + i) * absolute(off)
            else:
                total = total + load_wide(lanes + size + i) * (off * off)
        return total

    def summing(rounded: Callable) -> Callable:
        @inline
        def sums(lanes, inverse, low):
            """Writes the trial quants; weighted sums of quant, quant * quant, quant * x per lane."""
            sum_l, sum_l2, sum_xl = _zero(), _zero(), _zero()
            for i in range(0, size, VECTOR_BYTES):
                x = load_wide(lanes + i)
                l = rounded(inverse * (x - low))
                store_wide(lanes + 2 * size + i, l)
                wl = load_wide(lanes + size + i) * l
                sum_l, sum_l2, sum_xl = sum_l + wl, sum_l2 + wl * l, sum_xl + wl * x
            return sum_l, sum_l2, sum_xl

        return sums

    sums_of_all, sums_of_small = summing(rounding(0, search.largest)), summing(small_rounding(search.largest))

    @inline
    def trial_sums(lanes, inverse, low, least, high):
        """`sums` of sub-blocks with the smallest value `least` and the largest `high`, between whose scaled values all others lie."""
        if _are_small(inverse * (least - low)) and _are_small(inverse * (high - low)):
            return sums_of_small(lanes, inverse, low)
        return sums_of_all(lanes, inverse, low)

    @inline
    def find(lanes, found, stride):
        least, high = load_wide(lanes), load_wide(lanes)
        sum_w, sum_x = _zero(), _zero()
        for i in range(0, size, VECTOR_BYTES):
            x, w = load_wide(lanes + i), load_wide(lanes + size + i)
            least, high = where_less(x, least, x, least), where_less(high, x, x, high)
            sum_w, sum_x = sum_w + w, sum_x + w * x
        low = where_less(_zero(), least, _zero(), least)

        inverse, anchor = splat_wide(most) / (high - low), low
        scale = _one() / inverse
        trial_sums(lanes, inverse, low, least, high)
        least_error = total_error(lanes, scale, low)

        for k in range(n_trials):
            spread = (first + step * np.float32(k)) + most
            trial_inverse = splat_wide(spread) / (high - low)
            sum_l, sum_l2, sum_xl = trial_sums(lanes, trial_inverse, low, least, high)
            determinant = sum_w * sum_l2 - sum_l * sum_l
            trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
            trial_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
            if lanes_less(_zero(), trial_low) != 0:
                trial_scale = where_less(_zero(), trial_low, sum_xl / sum_l2, trial_scale)
                trial_low = where_less(_zero(), trial_low, _zero(), trial_low)
            error = where_less(_zero(), determinant, total_error(lanes, trial_scale, trial_low), _infinite())
            inverse = where_less(error, least_error, trial_inverse, inverse)
            anchor = where_less(error, least_error, low, anchor)
            scale = where_less(error, least_error, trial_scale, scale)
            low = where_less(error, least_error, trial_low, low)
            least_error = where_less(error, least_error, error, least_error)

        store_wide(found + SCALE * stride, scale)
        store_wide(found + LOW * stride, low)
        store_wide(found + INVERSE * stride, inverse)
        store_wide(found + ANCHOR * stride, anchor)

    return find


def affine_quants(n_values: int, largest: int) -> tuple[Callable, Callable]:
    """Two functions that write `n_values` quants, a byte each: as the stored scale and min have it, and as the search kept them.

    stored_quants(source, quants, scale, minimum); kept_quants(source, quants, at, stride), `at` pointing at the first found field.
    """

    @inline
    def store(quants, q):
        store_u8x16(quants, to_u8(larger(smaller(q, splat_i32(largest)), _no_quant())))

    @inline
    def stored_quants(source, quants, scale, minimum):
        for i in range(0, n_values, 16):
            store(quants + i, nearest_int((load_f32x16(source + 4 * i) + splat_f32(minimum)) / splat_f32(scale)))

    @inline
    def kept_quants(source, quants, at, stride):
        inverse, anchor = splat_f32(load_f32(at + INVERSE * stride)), splat_f32(load_f32(at + ANCHOR * stride))
        for i in range(0, n_values, 16):
            store(quants + i, nearest_int(inverse * (load_f32x16(source + 4 * i) - anchor)))

    return stored_quants, kept_quants
