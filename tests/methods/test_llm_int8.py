"""LLM.int8(): what bitsandbytes stores and computes, and what outlier columns are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ggpy.methods import absmax, llm_int8

from .layers import layer, output_error
from .stored import layers_of, stored_bytes


def test_the_weights_are_those_bitsandbytes_stores(shared: Path):
    """Bit for bit, but where a weight lies halfway between two levels to the last bits of a float32."""
    count = 0
    for weights, name, file in layers_of(shared, "bnb-int8"):
        quants, peaks = llm_int8.vector_wise(weights)
        stored = stored_bytes(file, f"{name}.weight").view(np.int8).reshape(weights.shape)
        np.testing.assert_array_equal(peaks[:, 0], stored_bytes(file, f"{name}.SCB").view("<f4"))
        different = quants != stored
        exact = weights.astype(np.float64) * 127 / peaks
        assert (np.abs(np.abs(exact - np.trunc(exact)) - 0.5)[different] < 1e-5).all()
        assert (np.abs(quants - stored) <= different).all() and different.mean() < 0.001
        count += 1
        values = llm_int8.quantize(weights, np.ones((1, weights.shape[1]), np.float32)).values
        np.testing.assert_allclose(values, quants * peaks / 127, rtol=2.0**-22)
    assert count == 35


def test_the_product_is_in_whole_numbers_but_for_the_outliers():
    weights, activations, held_out = layer(16, 256, salient=2)
    outliers = np.flatnonzero((np.abs(activations) >= 6).any(axis=0))
    assert 0 < len(outliers) < 20
    found = llm_int8.quantize(weights, activations)
    np.testing.assert_array_equal(found.values[:, outliers], weights[:, outliers].astype(np.float16))
    expected = np.zeros((len(held_out), 16))
    regular = np.setdiff1d(np.arange(256), outliers)
    for i, x in enumerate(held_out[:20]):
        x_peak = np.abs(x[regular]).max()
        x_quants = np.rint(x[regular] * (np.float32(127) / x_peak)).astype(int)
        for j, row in enumerate(weights):
            peak = np.abs(row).max()
            quants = np.rint(row[regular] * (np.float32(127) / peak)).astype(int)
            whole = float(x_peak) * float(peak) / 127**2 * int(x_quants @ quants)
            expected[i, j] = whole + x[outliers].astype(float) @ row[outliers].astype(np.float16).astype(float)
    np.testing.assert_allclose(found.apply(held_out[:20]), expected[:20], rtol=1e-5, atol=1e-5)
    assert found.bits == 8 + (32 + 8 * len(outliers) + 16 * len(outliers) / 16) / 256


def test_without_outlier_columns_large_activations_cost_the_rest_of_a_token():
    weights, activations, held_out = layer(16, 256, salient=2)
    wanted = held_out @ weights.T

    def error(threshold: float) -> float:
        return float(np.linalg.norm(llm_int8.quantize(weights, activations, threshold=threshold).apply(held_out) - wanted))

    assert error(6.0) < 0.5 * error(np.inf)
    # weights alone are as good as absmax: the difference is in the activations
    plain = output_error(weights, absmax.quantize(weights, activations).values, held_out)
    assert output_error(weights, llm_int8.quantize(weights, activations, threshold=np.inf).values, held_out) < 1.1 * plain
