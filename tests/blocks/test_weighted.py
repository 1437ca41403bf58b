"""Encoding with a row of an importance matrix: what holds for any weights, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat, dequantize

WEIGHTED = [f for f in BLOCKS.values() if f.encode_weighted is not None]
pytestmark = pytest.mark.parametrize("block_format", WEIGHTED, ids=lambda f: f.name)


@pytest.fixture
def rows() -> np.ndarray:
    return (np.random.default_rng(21).standard_normal((24, 512)) * 0.02).astype(np.float32)


@pytest.fixture
def importance() -> np.ndarray:
    """Most columns matter little, some a hundred times more."""
    random = np.random.default_rng(22)
    return (random.random(512) * np.where(random.random(512) < 0.1, 10, 0.1)).astype(np.float32)


def weighted(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray) -> np.ndarray:
    assert block_format.encode_weighted is not None
    blocks = block_format.encode_weighted(rows, importance)
    assert blocks.shape == (len(rows), block_format.row_bytes(rows.shape[1])) and blocks.dtype == np.uint8
    return blocks


def test_what_matters_is_kept_better(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray):
    assert block_format.encode is not None
    plain = block_format.encode(rows.reshape(-1, block_format.block_values)).reshape(len(rows), -1)

    def error(blocks: np.ndarray) -> float:
        return float((importance * (dequantize(blocks, block_format) - rows) ** 2).sum())

    assert error(weighted(block_format, rows, importance)) < 0.97 * error(plain)


def test_only_relative_importance_counts(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray):
    blocks = weighted(block_format, rows, importance)
    for power in (np.float32(2.0**-9), np.float32(2.0**12)):
        assert np.array_equal(weighted(block_format, rows, importance * power), blocks)
    assert not np.array_equal(weighted(block_format, rows, importance[::-1].copy()), blocks)


def test_rows_are_encoded_apart(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray):
    rows *= 2.0 ** np.arange(len(rows), dtype=np.float32)[:, None]
    blocks = weighted(block_format, rows, importance)
    assert np.array_equal(np.concatenate([weighted(block_format, row[None], importance) for row in rows]), blocks)
    assert len(weighted(block_format, rows[:0], importance)) == 0
    assert np.array_equal(weighted(block_format, rows[::2], importance), blocks[::2])


def test_columns_that_never_count_are_still_written(block_format: BlockFormat, rows: np.ndarray):
    decoded = dequantize(weighted(block_format, rows, np.zeros(512, np.float32)), block_format)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    ("index", "value"), [(0, np.nan), (300, np.inf), (511, -1.0), (256, -1e-30)], ids=["NaN", "infinite", "negative", "just negative"]
)
def test_wrong_importance_is_refused(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray, index: int, value: float):
    importance[index] = value
    with pytest.raises(
        ValueError, match=f"^importance is {re.escape(str(float(np.float32(value))))} at index {index}: it must be finite and"
    ):
        weighted(block_format, rows, importance)


def test_importance_of_the_wrong_length_is_refused(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray):
    for wrong in (importance[:256], importance[None], importance[:0]):
        with pytest.raises(
            ValueError, match=rf"^importance has the shape {re.escape(str(wrong.shape))}; rows of 512 weights need \(512,\)$"
        ):
            weighted(block_format, rows, wrong)


def test_wrong_weights_are_refused(block_format: BlockFormat, rows: np.ndarray, importance: np.ndarray):
    with pytest.raises(ValueError, match=f"^a row of 500 values is not a whole number of {block_format.name} blocks"):
        weighted(block_format, rows[:, :500], importance[:500])
    rows[1, 3] = np.inf
    with pytest.raises(ValueError, match=f"^{block_format.name} cannot encode inf at index 515: weights must be finite$"):
        weighted(block_format, rows, importance)
