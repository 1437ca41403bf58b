"""What holds for every method of the table."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.methods import METHODS, DoesNotFit

from .layers import layer, output_error

ROWS, COLS = 16, 256
SCALE = 16 / 64
BITS = {  # of a matrix of 16 × 256, written out by hand: quants, scales, zero points, statistics of statistics, places
    "absmax 8-bit": 8 + 16 / 256,
    "absmax 4-bit": 4 + 16 / 256,
    "zero-point 8-bit": 8 + (16 + 8) / 256,
    "zero-point 4-bit": 4 + (16 + 4) / 256,
    "grouped absmax 4-bit": 4 + SCALE,
    "grouped zero-point 4-bit": 4 + SCALE + 4 / 64,
    "LLM.int8()": 8 + 32 / 256,
    "NF4": 4 + 32 / 64,
    "NF4 double": 4 + 8 / 64 + 32 / (16 * 256) + 32 / (16 * 256),
    "OBQ 4-bit": 4 + SCALE + 4 / 64,
    "GPTQ 4-bit, fixed grid": 4 + SCALE + 4 / 64,
    "GPTQ 4-bit": 4 + SCALE + 4 / 64,
    "GPTQ 4-bit, activation order": 4 + SCALE + 4 / 64,
    "GPTQ 3-bit": 3 + SCALE + 3 / 64,
    "AWQ 4-bit": 4 + SCALE + 4 / 64,
    "Q4_0": 4.5,
    "Q2_K": 2.625,
    "Q3_K": 3.4375,
    "Q4_K": 4.5,
    "Q4_K with importance": 4.5,
    "Q5_K": 5.5,
    "Q6_K": 6.5625,
}
MOST = {2: 0.4, 3: 0.22, 4: 0.17, 5: 0.09, 6: 0.03, 8: 0.02}  # output error by whole bits


@pytest.mark.parametrize("name", METHODS)
def test_a_matrix_and_activations_give_values_and_bits(name: str):
    weights, activations, held_out = layer(ROWS, COLS)
    before = weights.copy(), activations.copy()
    found = METHODS[name].quantize(weights, activations)
    assert found.values.shape == weights.shape and found.values.dtype == np.float32
    assert output_error(weights, found.values, held_out) < MOST[int(found.bits)]
    assert found.apply(held_out).shape == (len(held_out), ROWS)
    again = METHODS[name].quantize(weights, activations)
    assert np.array_equal(found.values, again.values) and found.bits == again.bits
    assert np.array_equal(before[0], weights) and np.array_equal(before[1], activations)
    if name in BITS:
        assert found.bits == pytest.approx(BITS[name], abs=1e-12)


def test_every_method_but_spqr_has_its_bits_written_out():
    assert set(METHODS) - set(BITS) == {"SpQR 3-bit"}  # which depend on how many outliers it finds: see its own test


@pytest.mark.parametrize("name", METHODS)
def test_zeros_stay_zeros(name: str):
    weights, activations, _ = layer(16, 256, tokens=300)
    weights[3] = 0
    activations[:, 5] = 0
    values = METHODS[name].quantize(weights, activations).values
    assert np.isfinite(values).all()
    if name not in ("Q3_K", "Q2_K"):
        assert not values[3].any()


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_finite_is_refused(name: str):
    weights, activations, _ = layer(4, 256, tokens=8)
    weights[1, 2] = np.nan
    with pytest.raises(ValueError, match="weights hold NaN"):
        METHODS[name].quantize(weights, activations)
    weights[1, 2], activations[0, 0] = 0, np.inf
    with pytest.raises(ValueError, match="activations hold NaN"):
        METHODS[name].quantize(weights, activations)
    with pytest.raises(ValueError, match="expected \\(rows, cols\\)"):
        METHODS[name].quantize(weights, activations[:, :-1])


def test_rows_that_do_not_fit_are_named():
    weights, activations, _ = layer(4, 96, tokens=8)
    with pytest.raises(DoesNotFit, match="rows of 96 values are not whole groups of 64"):
        METHODS["GPTQ 4-bit"].quantize(weights, activations)
    with pytest.raises(DoesNotFit, match="rows of 96 values are not whole Q4_K blocks of 256"):
        METHODS["Q4_K"].quantize(weights, activations)
