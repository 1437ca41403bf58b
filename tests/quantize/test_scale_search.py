"""Scales better than ggml's: never worse in any block, clearly better in all together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.errors import GGPyError
from ggpy.quantize.scale_search import search
from ggpy.runtime.encode import encode_rows

ON_A_GRID = [f for f in BLOCKS.values() if f.grid is not None]
each_format = pytest.mark.parametrize("block_format", ON_A_GRID, ids=lambda f: f.name)


def block_errors(weights: np.ndarray, blocks: np.ndarray, importance: np.ndarray, block_format: BlockFormat) -> np.ndarray:
    off = weights.astype(np.float64) - dequantize(blocks, block_format)
    return (off * off * importance).reshape(-1, block_format.block_values).sum(1)


@each_format
def test_no_block_is_worse_than_ggmls(block_format: BlockFormat):
    random = np.random.default_rng(11)
    weights = (random.standard_t(5, (24, 512)) * 0.02).astype(np.float32)
    importance = random.lognormal(0, 1, 512).astype(np.float32)
    for cost in (importance, None):
        given = np.ones(512, np.float32) if cost is None else cost
        found = search(weights, block_format, cost)
        errors = block_errors(weights, found, given, block_format)
        theirs = [block_errors(weights, encode_rows(weights, block_format, importance=i), given, block_format) for i in (None, given)]
        assert (errors <= np.minimum(*theirs) * (1 + 1e-6)).all()
        assert errors.sum() < 0.99 * min(their.sum() for their in theirs)


@each_format
def test_difficult_rows(shared: Path, block_format: BlockFormat):
    with np.load(shared / "golden" / "encode.npz") as stored:
        weights, importance = stored["x"], stored["importance"]
    found = search(weights, block_format, importance)
    errors = block_errors(weights, found, importance, block_format)
    theirs = block_errors(weights, encode_rows(weights, block_format, importance=importance), importance, block_format)
    assert (errors <= theirs * (1 + 1e-6)).all()
    assert np.array_equal(search(weights, block_format, importance, threads=2), found)
    assert np.array_equal(search(weights, block_format, importance * 8), found)


def test_what_cannot_be_searched_is_refused():
    weights = np.ones((2, 512), np.float32)
    with pytest.raises(GGPyError, match=r"^no scales to choose for TQ2_0 blocks"):
        search(weights, BLOCKS["TQ2_0"])
    weights[1, 5] = np.inf
    with pytest.raises(ValueError, match=r"^Q4_K cannot encode inf at index 517: weights must be finite$"):
        search(weights, BLOCKS["Q4_K"])
    assert search(weights[:0], BLOCKS["Q4_K"]).shape == (0, 288)
