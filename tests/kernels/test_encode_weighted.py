"""Encoding with importance: what is asked of it, and whom it reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.runtime.encode import encode_measured, encode_rows


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
    values = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    importance = np.random.default_rng(2).random(64, np.float32)
    for name in ("Q8_0", "F16", "BF16"):
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
