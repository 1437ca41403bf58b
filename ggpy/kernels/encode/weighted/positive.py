"""The search for a number whose multiples stand for the scales, or mins, of a super-block: `ggpy.blocks.search.positive_scale`, a lane for
each super-block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks.search import NOTHING
from ggpy.kernels.encode.refine import refining
from ggpy.kernels.encode.wide import VECTOR_BYTES, byte_rounding, capped_rounding, load_wide, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import inline, outlined
from ggpy.simd.lanes import where_less

TENTH = np.float32(0.1)

_zero, _one, _nothing = wide_constant(0.0), wide_constant(1.0), wide_constant(float(NOTHING))


def positive_search(n_values: int, largest: int) -> Callable:
    """positive_search(8, 63)(lanes, scales) writes a vector of scales; the multiples, 0..255, are left in the last part of `lanes`.

    lanes: numbers, weights, room for their products, multiples, `n_values` vectors each. Numbers may be anything.
    """
    size, most = n_values * VECTOR_BYTES, np.float32(largest)
    capped = capped_rounding(largest)
    refine = refining(n_values, capped, byte_rounding, by_rest=True)

    def summing(rounded: Callable) -> Callable:
        @inline
        def error(lanes, inverse):
            """Weighted squared error of the multiples of 1 / inverse, per lane."""
            total, scale = _zero(), _one() / inverse
            for i in range(0, size, VECTOR_BYTES):
                x = load_wide(lanes + i)
                off = x - scale * rounded(inverse * x)
                total = total + (load_wide(lanes + size + i) * off) * off
            return total

        return error

    first_error, error = summing(byte_rounding), summing(capped)

    @outlined
    def find(lanes, scales):
        high = _zero()
        for i in range(0, size, VECTOR_BYTES):
            x = load_wide(lanes + i)
            high = where_less(x, high, high, x)  # C's comparison: what follows a NaN is taken

        inverse = splat_wide(most) / high
        least = first_error(lanes, inverse)
        for k in range(-4, 5):
            if k != 0:
                trial = splat_wide(TENTH * np.float32(k) + most) / high
                trial_error = error(lanes, trial)
                inverse = where_less(trial_error, least, trial, inverse)
                least = where_less(trial_error, least, trial_error, least)

        sum_xl, sum_l2 = _zero(), _zero()
        for i in range(0, size, VECTOR_BYTES):
            x, w = load_wide(lanes + i), load_wide(lanes + size + i)
            wx, l = w * x, capped(inverse * x)
            sum_xl, sum_l2 = sum_xl + wx * l, sum_l2 + (w * l) * l
            store_wide(lanes + 2 * size + i, wx)
            store_wide(lanes + 3 * size + i, byte_rounding(l))
        sum_xl, sum_l2 = refine(lanes, sum_xl, sum_l2)

        for i in range(3 * size, 4 * size, VECTOR_BYTES):
            store_wide(lanes + i, where_less(high, _nothing(), _zero(), load_wide(lanes + i)))
        scale = where_less(_zero(), sum_l2, sum_xl / sum_l2, _zero())
        store_wide(scales, where_less(high, _nothing(), _zero(), scale))

    return find
