"""Absmax, grouped absmax and zero-point: which levels they have, and what an outlier does to them."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.methods import absmax, grouped_absmax, zero_point

from .layers import layer

NONE = np.ones((1, 128), np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_absmax_levels_are_whole_multiples_of_a_half_precision_scale(bits: int):
    weights = layer(8, 128)[0]
    values = absmax.quantize(weights, NONE, bits=bits).values
    scale = (np.abs(weights).max(axis=1) / (2 ** (bits - 1) - 1)).astype(np.float16).astype(np.float32)[:, None]
    quants = np.rint(values / scale)
    np.testing.assert_array_equal(values, quants * scale)
    assert np.abs(quants).max() == 2 ** (bits - 1) - 1
    most = 0.5 * scale + 2.0**-10 * np.abs(weights).max(axis=1, keepdims=True)  # half a step, and the rounding of the scale
    assert (np.abs(values - weights) <= most).all()


def test_an_outlier_costs_its_row_with_one_scale_and_its_group_with_many():
    weights = layer(8, 128)[0]
    spoilt = weights.copy()
    spoilt[:, 7] = 4.0
    regular = np.arange(128) >= 64  # not in the outlier's group

    def error(quantize, weights, **options):
        return np.linalg.norm((quantize(weights, NONE, **options).values - weights)[:, regular])

    assert error(absmax.quantize, spoilt, bits=4) > 5 * error(absmax.quantize, weights, bits=4)
    assert error(grouped_absmax.quantize, spoilt) == error(grouped_absmax.quantize, weights)


def test_zero_point_spends_no_level_where_there_are_no_weights():
    weights = np.abs(layer(8, 128)[0])
    weights[:, 0] = 0
    one_sided = zero_point.quantize(weights, NONE, bits=4)
    both = absmax.quantize(weights, NONE, bits=4)
    assert np.linalg.norm(one_sided.values - weights) < 0.6 * np.linalg.norm(both.values - weights)
    assert not one_sided.values[:, 0].any()  # 0 is a level


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_point_keeps_zero_though_all_weights_have_one_sign(sign: int):
    weights = (sign * np.linspace(3, 4, 128, dtype=np.float32))[None]
    values = zero_point.quantize(weights, NONE, bits=8).values
    assert np.abs(values - weights).max() <= 4 / 255 * 0.51
