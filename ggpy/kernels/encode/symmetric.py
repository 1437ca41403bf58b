"""The search for the scale of quants around zero in sub-blocks, `ggpy.blocks.search.symmetric_scale`, a lane for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks.search import NOTHING
from ggpy.kernels.encode.rounding import nearest_int, splat_f32, splat_i32, to_u8
from ggpy.kernels.encode.wide import VECTOR_BYTES, load_wide, rounding, signed_rounding, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import larger, smaller, where_equal, where_less
from ggpy.simd.memory import load_f32, load_f32x16, store_u8x16

SCALE, KEPT, MOST, FIELDS = range(4)
"""What a search finds: scale, inverse scale of the kept quants, the largest magnitude."""

TENTH = np.float32(0.1)

_zero, _never, _nothing = wide_constant(0.0), wide_constant(-np.inf), wide_constant(float(NOTHING))


def symmetric_search(n_values: int, reach: int, finite: bool = True) -> Callable:
    """symmetric_search(16, 32)(lanes, found, stride): the search in sub-blocks of `n_values`, for quants -32..31.

    lanes: values, weights, products of both, `n_values` vectors each. The vector of found field k goes to `found` + k * stride.
    finite: whether values are finite as weights are, and not what another search found; scaled they then never exceed reach + 1.
    What is below NOTHING computes nonsense that is put right at the end.
    """
    size = n_values * VECTOR_BYTES
    whole = np.float32(reach)
    rounded = signed_rounding(-reach, reach - 1) if finite else rounding(-reach, reach - 1)

    @inline
    def sums(lanes, inverse):
        """Weighted sums of x * quant and quant * quant per lane."""
        sum_xl, sum_l2 = _zero(), _zero()
        for i in range(0, size, VECTOR_BYTES):
            l = rounded(inverse * load_wide(lanes + i))
            sum_xl = sum_xl + load_wide(lanes + 2 * size + i) * l
            sum_l2 = sum_l2 + (load_wide(lanes + size + i) * l) * l
        return sum_xl, sum_l2

    @inline
    def find(lanes, found, stride):
        peak, most = _zero(), _zero()
        for i in range(0, size, VECTOR_BYTES):
            x = load_wide(lanes + i)
            peak, most = where_less(most, absolute(x), x, peak), where_less(most, absolute(x), absolute(x), most)

        kept = splat_wide(-whole) / peak
        sum_xl, sum_l2 = sums(lanes, kept)
        scale = where_equal(sum_l2, _zero(), _zero(), sum_xl / sum_l2)
        best = scale * sum_xl
        for k in range(-9, 10):
            if k != 0:
                inverse = splat_wide(-(whole + TENTH * np.float32(k))) / peak
                sum_xl, sum_l2 = sums(lanes, inverse)
                explained, bar = where_less(_zero(), sum_l2, sum_xl * sum_xl, _never()), best * sum_l2
                scale = where_less(bar, explained, sum_xl / sum_l2, scale)
                kept = where_less(bar, explained, inverse, kept)
                best = where_less(bar, explained, scale * sum_xl, best)

        store_wide(found + SCALE * stride, where_less(most, _nothing(), _zero(), scale))
        store_wide(found + KEPT * stride, kept)
        store_wide(found + MOST * stride, most)

    return find


def symmetric_quants(n_values: int, reach: int) -> tuple[Callable, Callable]:
    """Two functions that write `n_values` quants 0 .. 2 * reach - 1, a byte each: as the stored scale has it, and as the search kept them.

    stored_quants(source, quants, scale); kept_quants(source, quants, at, stride), `at` pointing at the first found field.
    """

    @inline
    def store(quants, q):
        store_u8x16(quants, to_u8(larger(smaller(q, splat_i32(reach - 1)), splat_i32(-reach)) + splat_i32(reach)))

    @inline
    def stored_quants(source, quants, scale):
        for i in range(0, n_values, 16):
            store(quants + i, nearest_int(load_f32x16(source + 4 * i) / splat_f32(scale)))

    @inline
    def kept_quants(source, quants, at, stride):
        for i in range(0, n_values, 16):
            if load_f32(at + MOST * stride) < NOTHING:
                store(quants + i, splat_i32(-reach))
            else:
                store(quants + i, nearest_int(splat_f32(load_f32(at + KEPT * stride)) * load_f32x16(source + 4 * i)))

    return stored_quants, kept_quants
