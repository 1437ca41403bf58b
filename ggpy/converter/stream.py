"""The loop through which every weight goes once: rows are read, checked, encoded by worker threads, and written in order.

A chunk is about a million weights, and no more chunks are under way than threads and two; so memory does not grow with the model, and
reading, encoding and writing overlap.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ggpy.blocks import BlockFormat, dequantize
from ggpy.converter.source import RowReader, SourceTensor
from ggpy.errors import CheckpointError, printable
from ggpy.gguf import GGUFWriter

CHUNK_VALUES = 1 << 20
_F16_MAX = 65504.0
_F16_SMALL = 2.0**-10  # weights below may be lost when they are scaled by an f16; only then it is worth a look

EncodeRows = Callable[[np.ndarray, BlockFormat], np.ndarray]
"""float32 (rows, columns) and a format -> uint8 (rows, row_bytes)."""


@dataclass(frozen=True)
class Job:
    """One tensor and the format it gets."""

    tensor: SourceTensor
    format: BlockFormat

    @property
    def copied(self) -> bool:
        """Whether the tensor has its format already, so that its bytes are taken as they are."""
        return self.tensor.raw is not None and self.tensor.dtype == self.format.name

    @property
    def n_bytes(self) -> int:
        return self.tensor.rows * self.format.row_bytes(self.tensor.columns)


@dataclass(frozen=True)
class Written:
    """What went into the file for one tensor. digest: BLAKE2b-128 of its bytes. relative_rmse: None where it was not measured."""

    digest: bytes
    relative_rmse: float | None


class NeedsWider(Exception):
    """A tensor that the chosen format cannot hold: `what` says which of its values would be lost."""

    def __init__(self, name: str, what: str):
        super().__init__(name)
        self.name, self.what = name, what


@dataclass(frozen=True)
class _Chunk:
    """Encoded rows. peak: largest magnitude; squares: Σ x²; error_squares: Σ (decoded − x)², both 0 where not measured."""

    data: np.ndarray  # uint8 (rows, row_bytes)
    peak: float = 0.0
    squares: float = 0.0
    error_squares: float = 0.0


@dataclass(frozen=True)
class _Piece:
    job: Job
    rows: RowReader
    start: int
    stop: int


class Stream:
    """Encodes and writes tensors with `threads` worker threads. A context manager; leaving it ends the workers.

    on_values(name, n): called after n more values of a tensor are written.
    """

    def __init__(self, threads: int, encode_rows: EncodeRows, measure_error: bool, on_values: Callable[[str, int], None]):
        self._encode_rows, self._measure_error, self._on_values = encode_rows, measure_error, on_values
        self._window = threads + 2
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ggpy-encode")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, writer: GGUFWriter, jobs: list[Job]) -> dict[str, Written]:
        """Write every job's tensor, in order; by tensor name what was written.

        Raises CheckpointError naming tensor and index for NaN or infinity, NeedsWider for values a format cannot hold.
        """
        chunks = self._in_order(jobs)
        return {job.tensor.name: self._write_tensor(writer, job, chunks) for job in jobs}

    def _in_order(self, jobs: list[Job]) -> Iterator[_Chunk]:
        under_way: deque[Future[_Chunk]] = deque()
        for job in jobs:
            rows = job.tensor.raw if job.copied and job.tensor.raw else job.tensor.open()
            step = rows_per_chunk(job.tensor)
            for start in range(0, job.tensor.rows, step):
                piece = _Piece(job, rows, start, min(start + step, job.tensor.rows))
                under_way.append(self._pool.submit(self._encode, piece))
                if len(under_way) >= self._window:
                    yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _encode(self, piece: _Piece) -> _Chunk:
        job, values = piece.job, piece.rows(piece.start, piece.stop)
        if job.copied:
            return _Chunk(values)
        peak = float(max(values.max(), -values.min()))  # NaN wins both
        if not math.isfinite(peak):
            raise _not_finite(piece, values)
        data = self._encode_rows(values, job.format)
        if not self._measure_error and peak < _F16_MAX:
            return _Chunk(data, peak)
        decoded = dequantize(data, job.format)
        if not np.isfinite(decoded).all():
            raise NeedsWider(job.tensor.name, f"values up to {peak:g} overflow the half-precision numbers of {job.format.name}")
        decoded -= values
        return _Chunk(data, peak, _sum_of_squares(values), _sum_of_squares(decoded))

    def _write_tensor(self, writer: GGUFWriter, job: Job, chunks: Iterator[_Chunk]) -> Written:
        digest, peak, squares, error_squares = hashlib.blake2b(digest_size=16), 0.0, 0.0, 0.0

        def encoded() -> Iterator[np.ndarray]:
            nonlocal peak, squares, error_squares
            for _ in range(math.ceil(job.tensor.rows / rows_per_chunk(job.tensor))):
                chunk = next(chunks)
                digest.update(chunk.data.data)
                yield chunk.data
                peak, squares, error_squares = max(peak, chunk.peak), squares + chunk.squares, error_squares + chunk.error_squares
                self._on_values(job.tensor.name, len(chunk.data) * job.tensor.columns)

        writer.write_tensor(job.tensor.name, encoded())
        if 0 < peak < _F16_SMALL and self._vanishes(peak, job.format):
            raise NeedsWider(
                job.tensor.name, f"its values, up to {peak:g}, are too small for the half-precision numbers of {job.format.name}"
            )
        error = math.sqrt(error_squares / squares) if squares else 0.0
        return Written(digest.digest(), error if self._measure_error else None)

    def _vanishes(self, peak: float, format: BlockFormat) -> bool:
        """Whether even the largest value of a tensor becomes 0."""
        block = np.zeros((1, format.block_values), np.float32)
        block[0, 0] = peak
        return not dequantize(self._encode_rows(block, format), format).any()


def rows_per_chunk(tensor: SourceTensor) -> int:
    return max(1, CHUNK_VALUES // max(1, tensor.columns))


def _sum_of_squares(values: np.ndarray) -> float:
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))


def _not_finite(piece: _Piece, values: np.ndarray) -> CheckpointError:
    tensor = piece.job.tensor
    row, column = np.argwhere(~np.isfinite(values))[0]
    index = [int(i) for i in np.unravel_index((piece.start + row) * tensor.columns + column, tensor.shape)]
    return CheckpointError(
        f"tensor {printable(tensor.origin)} is {values[row, column]} at index {index}, expected finite weights: damaged?"
    )
