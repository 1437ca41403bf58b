"""Quants moved one after the other while that helps, as in `ggpy.blocks.search.refined_scale` and `positive_scale`, a lane for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks.search import ROUNDS
from ggpy.kernels.encode.wide import VECTOR_BYTES, load_wide, store_wide, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.lanes import lanes_less, where_equal, where_less

_zero, _never = wide_constant(0.0), wide_constant(np.inf)


def refining(n_values: int, rounded: Callable, kept: Callable, by_rest: bool) -> Callable:
    """refine(lanes, sum_xl, sum_l2) -> the sums after it, weighted ones of x * quant and quant * quant.

    lanes: values, weights, products of both, quants, `n_values` vectors each. rounded(values) makes a quant of a float, kept(quant) what
    is kept of it. by_rest: whether the sum of squares must be positive without the value that is moved, else with its new quant.
    A round that moves nothing is the last: the next would find the same.
    """
    size = n_values * VECTOR_BYTES

    @inline
    def refine(lanes, sum_xl, sum_l2):
        for _ in range(ROUNDS):
            moved = np.int64(0)
            for i in range(0, size, VECTOR_BYTES):
                w, wx, old = load_wide(lanes + size + i), load_wide(lanes + 2 * size + i), load_wide(lanes + 3 * size + i)
                rest_xl, rest_l2 = sum_xl - wx * old, sum_l2 - (w * old) * old
                new = rounded((load_wide(lanes + i) * rest_l2) / rest_xl)
                new_xl, new_l2 = rest_xl + wx * new, rest_l2 + (w * new) * new
                gain, bar = (new_xl * new_xl) * sum_l2, (sum_xl * sum_xl) * new_l2
                bar = where_less(_zero(), rest_xl, bar, _never())
                bar = where_less(_zero(), rest_l2 if by_rest else new_l2, bar, _never())
                bar = where_equal(new, old, _never(), bar)
                store_wide(lanes + 3 * size + i, where_less(bar, gain, kept(new), old))
                sum_xl, sum_l2 = where_less(bar, gain, new_xl, sum_xl), where_less(bar, gain, new_l2, sum_l2)
                moved |= lanes_less(bar, gain)
            if moved == 0:
                break
        return sum_xl, sum_l2

    return refine
