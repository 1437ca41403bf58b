"""AWQ: salient columns are scaled, not skipped; it is never worse than rounding on what it was calibrated on."""

from __future__ import annotations

import numpy as np

from ggpy.methods import awq, zero_point

from .layers import layer, output_error


def test_salient_columns_are_finer_and_still_rounded():
    weights, activations, held_out = layer(64, 256, salient=3)
    salient = np.argsort(-np.abs(activations).mean(axis=0))[:3]
    found = awq.quantize(weights, activations).values
    plain = zero_point.quantize(weights, activations, bits=4, group=64).values
    error, plain_error = (np.abs(values - weights)[:, salient].mean() for values in (found, plain))
    assert 0 < error < 0.6 * plain_error
    assert (found[:, salient] != weights[:, salient]).mean() > 0.9
    assert output_error(weights, found, held_out) < 0.7 * output_error(weights, plain, held_out)


def test_the_first_candidate_is_plain_rounding_and_all_are_balanced():
    _, activations, _ = layer(1, 256, salient=3)
    scales = awq.candidates(activations)
    assert len(scales) == 20 and (scales[0] == 1).all()
    for s in scales:
        np.testing.assert_allclose(s.max() * s.min(), 1, rtol=1e-5)
    assert scales[-1].max() > scales[10].max() > 1


def test_the_choice_is_never_worse_than_plain_rounding_over_the_calibration_text():
    for seed in range(4):
        weights, activations, _ = layer(16, 128, seed=seed)
        plain = zero_point.quantize(weights, activations, bits=4, group=64).values
        found = awq.quantize(weights, activations).values
        assert output_error(weights, found, activations) <= 1.001 * output_error(weights, plain, activations)
