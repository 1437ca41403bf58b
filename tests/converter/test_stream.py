"""The loop through which every weight goes: pieces of rows, and the importance that goes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter import stream
from ggpy.converter.source import SourceTensor
from ggpy.converter.stream import Job, Stream
from ggpy.gguf import GGUFWriter
from ggpy.runtime.encode import Encoded, encode_measured


def tensor_of(values: np.ndarray) -> SourceTensor:
    rows = values.reshape(-1, values.shape[-1])
    return SourceTensor("w", "w", values.shape, "F32", "F32", lambda: lambda start, stop: rows[start:stop])


@pytest.mark.parametrize("matrices", [1, 3])
def test_pieces_cover_every_row_once_and_end_with_each_matrix(monkeypatch: pytest.MonkeyPatch, matrices: int):
    monkeypatch.setattr(stream, "CHUNK_VALUES", 32 * 4)
    importance = np.arange(matrices * 32, dtype=np.float32).reshape(matrices, 32)
    job = Job(tensor_of(np.zeros((matrices, 10, 32), np.float32)), BLOCKS["Q8_0"], importance)
    pieces = list(job.pieces())
    assert [row for start, stop in pieces for row in range(start, stop)] == list(range(matrices * 10))
    assert pieces[:3] == [(0, 4), (4, 8), (8, 10)]
    for start, stop in pieces:
        for row in (start, stop - 1):
            assert np.array_equal(job.importance_of(row), importance[row // 10])  # pyright: ignore[reportArgumentType]


def test_a_tensor_without_importance_is_one_run_of_rows():
    job = Job(tensor_of(np.zeros((4, 1 << 10, 1 << 10), np.float32)), BLOCKS["Q8_0"])
    assert list(job.pieces()) == [(i << 10, (i + 1) << 10) for i in range(4)]
    assert job.importance_of(5) is None


def test_every_row_is_encoded_with_the_importance_of_its_matrix(tmp_path: Path):
    values = np.random.default_rng(0).standard_normal((3, 5, 64), np.float32)
    importance = np.random.default_rng(1).random((3, 64), np.float32)
    seen = []

    def encode(values: np.ndarray, block_format, *, importance: np.ndarray | None = None) -> Encoded:
        seen.append((values.copy(), importance))
        return encode_measured(values, block_format)

    job = Job(tensor_of(values), BLOCKS["Q8_0"], importance)
    with GGUFWriter(tmp_path / "a.gguf") as writer, Stream(1, encode, False, lambda name, n: None) as loop:
        writer.add_tensor("w", values.shape, job.format)
        loop.write(writer, [job])
    assert len(seen) == 3
    for (rows, row_importance), expert, expected in zip(seen, values, importance, strict=True):
        assert np.array_equal(rows, expert)
        assert np.array_equal(row_importance, expected)
