"""NF4: levels, blocks and double quantization as bitsandbytes has them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from ggpy.methods import nf4

from .stored import layers_of, stored_bytes


def test_levels_are_quantiles_and_not_evenly_spaced(shared: Path):
    levels = nf4.normal_levels()
    _, name, file = next(layers_of(shared, "bnb-nf4"))
    np.testing.assert_allclose(levels, stored_bytes(file, f"{name}.weight.quant_map").view("<f4"), rtol=0, atol=1.2e-7)
    steps = np.diff(levels)
    assert steps.max() > 3 * steps.min() and steps.argmin() in (6, 7)  # the smallest beside 0
    assert (levels < 0).sum() == 7 and (levels > 0).sum() == 8 and 0 in levels
    largest = NormalDist().inv_cdf(0.9677083)
    shares = np.diff([NormalDist().cdf(largest * float(x)) for x in levels])
    np.testing.assert_allclose(shares[7:], shares[7:].mean(), rtol=1e-5)  # as much of a normal distribution between any two
    np.testing.assert_allclose(shares[:7], shares[:7].mean(), rtol=1e-5)


def test_the_code_of_scales_is_bitsandbytes_dynamic_one(shared: Path):
    _, name, file = next(layers_of(shared, "bnb-nf4dq"))
    stored = stored_bytes(file, f"{name}.weight.nested_quant_map").view("<f4")
    np.testing.assert_allclose(nf4.dynamic_levels(), stored, rtol=0, atol=6e-8)


def test_values_are_those_bitsandbytes_stores(shared: Path):
    count = 0
    for weights, name, file in layers_of(shared, "bnb-nf4"):
        packed = stored_bytes(file, f"{name}.weight")
        quants = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: weights.size]
        scales = np.repeat(stored_bytes(file, f"{name}.weight.absmax").view("<f4"), 64)[: weights.size]
        stored = (nf4.normal_levels()[quants] * scales).reshape(weights.shape)
        found = nf4.quantize(weights, np.ones((1, weights.shape[1]), np.float32), double=False)
        np.testing.assert_array_equal(found.values, stored)
        count += 1
    assert count == 35


def test_double_quantized_scales_are_those_bitsandbytes_stores(shared: Path):
    """But for two in a thousand, which lie between two codes: its search on the CPU does not always take the nearer one."""
    different = total = 0
    for weights, name, file in layers_of(shared, "bnb-nf4dq"):
        state = json.loads(stored_bytes(file, f"{name}.weight.quant_state.bitsandbytes__nf4").tobytes())
        codes = stored_bytes(file, f"{name}.weight.absmax")
        nested = stored_bytes(file, f"{name}.weight.nested_absmax").view("<f4")
        scales = nf4.dynamic_levels()[codes] * np.repeat(nested, 256)[: len(codes)] + np.float32(state["nested_offset"])
        packed = stored_bytes(file, f"{name}.weight")
        quants = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: weights.size]
        stored = (nf4.normal_levels()[quants] * np.repeat(scales, 64)[: weights.size]).reshape(weights.shape)
        found = nf4.quantize(weights, np.ones((1, weights.shape[1]), np.float32))
        off = np.abs(found.values - stored) > 1e-6 * np.abs(stored).max()
        different, total = different + off.sum(), total + off.size
        np.testing.assert_allclose(found.values, stored, rtol=0.02, atol=1e-6)
    assert different < 0.002 * total
    assert found.bits == pytest.approx(4 + 8 / 64 + 64 / weights.size)  # one scale of scales and their mean


def test_blocks_run_across_rows():
    weights = np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32)
    found = nf4.quantize(weights, np.ones((1, 96), np.float32), double=False)
    assert found.bits == 4 + 32 * 5 / 288
    for start in range(0, 288, 64):  # the largest of a block is the outermost level, and kept
        block, kept = (x.reshape(-1)[start : start + 64] for x in (weights, found.values))
        assert kept[np.abs(block).argmax()] == block[np.abs(block).argmax()]
