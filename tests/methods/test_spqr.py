"""SpQR: outliers are kept one by one, everything stored is counted."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.methods import METHODS, spqr

from .layers import layer, output_error

WITHOUT_OUTLIERS = 3 + 2 * (3 + 2 * 16 / 16) / 16  # quants; scale and zero point of each 16, and what 16 rows of these share


def test_weights_that_spoil_their_group_are_kept_in_half_precision():
    weights, activations, held_out = layer(64, 256)
    rng = np.random.default_rng(1)
    places = rng.integers(0, 64, 60), rng.integers(0, 256, 60)
    weights[places] = 1.0  # twenty times the rest
    found = spqr.quantize(weights, activations)
    kept = np.abs(found.values[places] - 1) < 0.2  # those before may have moved it
    assert kept.mean() > 0.95
    without = spqr.quantize(weights, activations, threshold=np.inf)
    assert output_error(weights, found.values, held_out) < 0.7 * output_error(weights, without.values, held_out)


def test_all_that_is_stored_is_counted():
    weights, activations, _ = layer(64, 256)
    places = 32 / 256 + 16 / 64  # where the outliers of each row begin; the order of the columns
    assert spqr.quantize(weights, activations, threshold=np.inf).bits == pytest.approx(WITHOUT_OUTLIERS + places)
    rounded = spqr.quantize(weights, activations, threshold=np.inf).values
    found = spqr.quantize(weights, activations, threshold=0.05)
    outliers = (found.bits - WITHOUT_OUTLIERS - places) * weights.size / 32
    assert outliers == pytest.approx(round(outliers)) and 0 < outliers < 0.2 * weights.size
    assert not np.array_equal(rounded, found.values)


def test_statistics_take_eight_levels_in_sixteen_rows():
    values = np.random.default_rng(0).random(40)
    found = spqr._statistics(values)
    for start in (0, 16, 32):
        part = found[start : start + 16]
        assert len(np.unique(part)) <= 8
        assert np.abs(part - values[start : start + 16]).max() <= 1 / 14 + 0.001


def test_at_the_bits_of_gptq_it_is_better_than_gptq_with_3_bits():
    weights, activations, held_out = layer(64, 256)
    found = spqr.quantize(weights, activations)
    assert output_error(weights, found.values, held_out) < output_error(
        weights, METHODS["GPTQ 3-bit"].quantize(weights, activations).values, held_out
    )
