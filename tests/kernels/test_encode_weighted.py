"""Encoding with importance: what is asked of it, and compiled encoders against their NumPy twins and ggml's bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.runtime.encode import FLOATS, encode_measured, encode_rows, encoder_name, widened
from tests.kernels.test_encode import by_name, hard_weights, narrowed

WEIGHTED = [f for f in BLOCKS.values() if f.encode_weighted is not None and encoder_name(f, weighted=True) is not None]


def reference(values: np.ndarray, block_format: BlockFormat, importance: np.ndarray) -> np.ndarray:
    assert block_format.encode_weighted is not None
    return block_format.encode_weighted(values, importance)


def importances(cols: int) -> Iterator[np.ndarray]:
    """Rows of importance, float32 (cols,), each of another kind, over and over."""
    random = np.random.default_rng(13)
    some = random.random(cols)
    kinds = (
        some,
        np.where(random.random(cols) < 0.3, 0, some),
        np.ones(cols),
        10.0 ** random.integers(-30, 30, cols),
        np.where(np.arange(cols) % 64 < 32, 0, some),
        np.zeros(cols),
        np.full(cols, 3e38),
    )
    return cycle([kind.astype(np.float32) for kind in kinds])


def test_formats_that_depend_on_importance_are_compiled():
    names = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"}
    assert names <= {f.name for f in WEIGHTED}


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_equal_to_the_reference_on_hard_weights(block_format: BlockFormat):
    with np.errstate(all="ignore"):
        for (name, values), importance in zip(hard_weights(), importances(256), strict=False):
            rows = np.clip(values, -3e38, 3e38).astype(np.float32)[:40]
            expected = reference(rows, block_format, importance)
            assert np.array_equal(encode_rows(rows, block_format, 2, importance=importance), expected), name


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_equal_to_ggml(shared: Path, block_format: BlockFormat):
    with np.load(shared / "golden" / "encode.npz") as golden:
        values, importance, expected = golden["x"], golden["importance"], golden[f"{block_format.name}.imatrix.blocks"]
    assert np.array_equal(encode_rows(values, block_format, 2, importance=importance), expected)


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_rows_of_any_number_and_length(block_format: BlockFormat):
    random, kinds = np.random.default_rng(17), importances(7 * 256)
    for rows, row_blocks in ((0, 3), (1, 1), (2, 1), (1, 7), (33, 1), (5, 3), (35, 2)):
        values = random.standard_normal((rows, row_blocks * block_format.block_values)).astype(np.float32)
        importance = next(kinds)[: values.shape[1]]
        expected = reference(values, block_format, importance)
        assert np.array_equal(encode_rows(values, block_format, 1, importance=importance), expected), (rows, row_blocks)
    assert encode_rows(np.empty((3, 0), np.float32), block_format, importance=np.empty(0, np.float32)).shape == (3, 0)


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_threads_change_nothing(block_format: BlockFormat):
    values = np.random.default_rng(7).standard_normal((403, 768)).astype(np.float32)
    importance = next(importances(768))
    expected = encode_rows(values, block_format, 1, importance=importance)
    for rows in (slice(0, 1), slice(100, 103)):
        assert np.array_equal(expected[rows], reference(values[rows], block_format, importance))
    for threads in (2, 5):
        assert np.array_equal(encode_rows(values, block_format, threads, importance=importance), expected)


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_nothing_is_written_outside_the_blocks(block_format: BlockFormat):
    values = np.random.default_rng(2).standard_normal((3, block_format.block_values)).astype(np.float32)
    importance = next(importances(block_format.block_values))
    memory = np.full(3 * block_format.block_bytes + 128, 0xA5, np.uint8)
    out = memory[64:-64].reshape(3, -1)
    assert encode_rows(values, block_format, 1, out, importance) is out
    assert (memory[:64] == 0xA5).all() and (memory[-64:] == 0xA5).all()
    assert np.array_equal(out, reference(values, block_format, importance))


@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
@pytest.mark.parametrize("source", [name for name in FLOATS if name != "F32"])
def test_narrow_floats_are_widened_on_the_way(source: str, block_format: BlockFormat):
    stored = narrowed(np.random.default_rng(3).standard_normal((37, 512)).astype(np.float32), source)
    importance = next(importances(1024))[::2]  # not contiguous
    blocks, peak = encode_measured(stored, block_format, 2, importance=importance)
    wide = widened(stored)
    assert np.array_equal(blocks, reference(wide, block_format, importance))
    assert peak == np.abs(wide).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block_format", WEIGHTED, ids=by_name)
def test_the_first_value_that_is_not_finite_is_named(block_format: BlockFormat, bad: float):
    for index in (0, 15, 16, 50_000, 262_143):
        values = np.ones((512, 512), np.float32)
        values.flat[[index, 150_000, 262_143]] = bad
        first = min(index, 150_000)
        for threads in (1, 3):
            with pytest.raises(ValueError, match=rf"^{block_format.name} cannot encode {bad} at index {first}: weights must be finite$"):
                encode_rows(values, block_format, threads, importance=np.ones(512, np.float32))


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.ones(32, np.float32), r"^importance must be float32 \(64,\), one for each column, not float32 \(32,\)$"),
        (np.ones((1, 64), np.float32), r"not float32 \(1, 64\)$"),
        (np.ones(64), r"not float64 \(64,\)$"),
        (
            np.where(np.arange(64) == 7, np.float32(-1), np.float32(1)),
            "^importance of column 7 is -1.0: it must be finite and not negative$",
        ),
        (np.where(np.arange(64) == 63, np.float32(np.nan), np.float32(1)), "^importance of column 63 is nan:"),
        (np.where(np.arange(64) == 0, np.float32(np.inf), np.float32(1)), "^importance of column 0 is inf:"),
    ],
)
@pytest.mark.parametrize("name", ["Q8_0", "Q4_0"])
def test_importance_that_does_not_fit_is_refused(name: str, importance: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        encode_rows(np.zeros((2, 64), np.float32), BLOCKS[name], importance=importance)


def test_formats_that_do_not_depend_on_importance_ignore_it():
    values = np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32)
    importance = np.random.default_rng(2).random(256, np.float32)
    for name in ("Q8_0", "F16", "BF16", "TQ1_0", "TQ2_0", "MXFP4"):
        assert BLOCKS[name].encode_weighted is None
        assert np.array_equal(encode_rows(values, BLOCKS[name], importance=importance), encode_rows(values, BLOCKS[name]))


def test_without_a_compiled_encoder_the_reference_gets_whole_rows_of_float32():
    seen = []

    def encode_weighted(rows: np.ndarray, importance: np.ndarray) -> np.ndarray:
        assert rows.dtype == np.float32
        seen.append(len(rows))
        marks = np.zeros((len(rows), 4096 // 32 * 34), np.uint8)
        marks[:, 0], marks[:, 1] = rows[:, 0].astype(np.uint8), importance[:1].astype(np.uint8)
        return marks

    marking = replace(BLOCKS["Q8_0"], encode_weighted=encode_weighted)
    values = np.repeat(np.arange(150, dtype=np.float16)[:, None], 4096, axis=1)
    blocks, peak = encode_measured(values, marking, 2, importance=np.full(4096, 9, np.float32))
    assert (blocks[:, 0] == np.arange(150)).all() and (blocks[:, 1] == 9).all() and peak == 149
    assert sum(seen) == 150 and len(seen) > 1

    values[100, 5] = np.inf
    with pytest.raises(ValueError, match=rf"^Q8_0 cannot encode inf at index {100 * 4096 + 5}: weights must be finite$"):
        encode_rows(values, marking, importance=np.ones(4096, np.float32))
