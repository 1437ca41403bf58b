"""`tools/compare_blocks.py` counts the rows in which ggml and ggpy differ; a stand-in for ggml here errs where it is told to."""

from __future__ import annotations

from dataclasses import dataclass

import compare_blocks
import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat, dequantize

from .run_tool import run_tool

NAMES = ["Q4_0", "IQ4_XS"]


@dataclass
class StandIn:
    """ggpy itself, but for the first `wrong` rows."""

    wrong: int

    def encode(self, rows: np.ndarray, block_format: BlockFormat, importance: np.ndarray | None) -> np.ndarray:
        assert block_format.encode is not None and block_format.encode_weighted is not None
        if importance is None:
            blocks = block_format.encode(rows.reshape(-1, block_format.block_values)).reshape(len(rows), -1)
        else:
            blocks = block_format.encode_weighted(rows, importance)
        blocks[: self.wrong, -1] ^= 1
        return blocks

    def decode(self, blocks: np.ndarray, block_format: BlockFormat) -> np.ndarray:
        values = dequantize(blocks, block_format)
        values[: self.wrong].view(np.uint32)[:] ^= 1 << 31  # the sign, also of zeros and infinities
        return values


@pytest.mark.parametrize("wrong", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_rows_that_differ_are_counted(name: str, wrong: int):
    comparisons = dict(compare_blocks.differing(StandIn(wrong), BLOCKS[name], np.random.default_rng(2)))
    assert list(comparisons) == ["decoding", "encoding", "with importance"]
    with np.errstate(all="ignore"):
        counted = {what: compare() for what, compare in comparisons.items()}
    assert counted == dict.fromkeys(comparisons, wrong)


def test_rows_and_importance_can_be_encoded():
    random = np.random.default_rng(3)
    for _ in range(20):
        rows, importance = compare_blocks.random_rows(random), compare_blocks.random_importance(random)
        assert rows.shape == (compare_blocks.ROWS, compare_blocks.COLS) and rows.dtype == np.float32 and np.isfinite(rows).all()
        assert importance.shape == rows.shape[1:] and np.isfinite(importance).all() and (importance >= 0).all()


def test_wrong_names_and_paths_are_bad_usage():
    done = run_tool("compare_blocks", "libggml-base.so", "--format", "Q9")
    assert done.returncode == 2 and "no format to compare: Q9; there are Q4_0" in done.stderr
    done = run_tool("compare_blocks", "nowhere.so", "--format", "Q4_0")
    assert done.returncode == 2 and "no library at nowhere.so" in done.stderr
