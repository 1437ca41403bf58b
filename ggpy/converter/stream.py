"""The loop through which every weight goes once: rows are read, checked, encoded by worker threads, and written in order.

A chunk is about a million weights, and no more chunks are under way than threads and two; so memory does not grow with the model, and
reading, encoding and writing overlap.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from ggpy.blocks import BlockFormat, dequantize
from ggpy.converter.finite import fault_in_blocks, fault_in_values, unchanged
from ggpy.converter.source import RowReader, SourceTensor
from ggpy.errors import CheckpointError, printable
from ggpy.gguf import GGUFWriter
from ggpy.runtime.encode import Encoded, widened

CHUNK_VALUES = 1 << 20
_F16_MAX = 65504.0
_F16_SMALL = 2.0**-10  # weights below may be lost when they are scaled by an f16; only then it is worth a look

T = TypeVar("T")


class EncodeRows(Protocol):
    """As `ggpy.runtime.encode.encode_measured`: float rows (rows, columns) and a format -> uint8 (rows, row_bytes) and their peak;
    ValueError for NaN and infinity."""

    def __call__(self, values: np.ndarray, block_format: BlockFormat, *, importance: np.ndarray | None = None) -> Encoded: ...


@dataclass(frozen=True)
class Job:
    """One tensor and the format it gets.

    importance: of its columns, from an importance matrix: float32 (columns,), or (matrices, columns) where the tensor is a stack of
    matrices, as experts are, and each has its own. blocks: what opens a reader of its rows in this format, where it was encoded before.
    """

    tensor: SourceTensor
    format: BlockFormat
    importance: np.ndarray | None = None
    blocks: Callable[[], RowReader] | None = None

    @property
    def stored_rows(self) -> Callable[[], RowReader] | None:
        """What opens a reader of rows in this format, where the tensor has it already or is repacked; None where it is to be encoded."""
        raw = self.tensor.raw
        if self.blocks is not None:
            return self.blocks
        if raw is not None and self.tensor.dtype == self.format.name:
            return lambda: raw
        return self.tensor.repacked.get(self.format.name)

    @property
    def copied(self) -> bool:
        """Whether the tensor has its format already, or its grid fits in it, so that quants are taken as they are."""
        return self.stored_rows is not None

    @property
    def n_bytes(self) -> int:
        return self.tensor.rows * self.format.row_bytes(self.tensor.columns)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of what is encoded at once: about a million weights, all of the same importance."""
        step = max(1, CHUNK_VALUES // max(1, self.tensor.columns))
        matrix = self.tensor.rows // self._n_importances
        for first in range(0, self.tensor.rows, max(1, matrix)):
            yield from ((start, min(start + step, first + matrix)) for start in range(first, first + matrix, step))

    def importance_of(self, row: int) -> np.ndarray | None:
        """float32 (columns,): the importance that counts for a row."""
        if self.importance is None:
            return None
        return self.importance.reshape(-1, self.tensor.columns)[row // (self.tensor.rows // self._n_importances)]

    @property
    def _n_importances(self) -> int:
        return 1 if self.importance is None or self.importance.ndim == 1 else len(self.importance)


@dataclass(frozen=True)
class WrittenPiece:
    """Bytes of a tensor that were written at once. checksum: their CRC-32, which finds every fault of up to 32 bits in a row."""

    n_bytes: int
    checksum: int


@dataclass(frozen=True)
class Written:
    """What went into the file for one tensor. pieces: its bytes, in order. relative_rmse: None where it was not measured. fault: what and
    where its first NaN or infinity is, if it has any and they are allowed. worst_error: of a tensor that was repacked and measured, the
    largest difference of a weight as a part of its block's largest magnitude."""

    pieces: tuple[WrittenPiece, ...]
    relative_rmse: float | None
    fault: str | None = None
    worst_error: float | None = None


class NeedsWider(Exception):
    """A tensor that the chosen format cannot hold: `what` says which of its values would be lost."""

    def __init__(self, name: str, what: str):
        super().__init__(name)
        self.name, self.what = name, what


@dataclass(frozen=True)
class _Chunk:
    """Encoded rows. checksum: CRC-32 of the data; peak: largest magnitude; squares: Σ x²; error_squares: Σ (decoded − x)², both 0 where
    not measured; worst: the largest |decoded − x| as a part of its block's peak, of what was repacked."""

    data: np.ndarray  # uint8 (rows, row_bytes)
    checksum: int
    peak: float = 0.0
    squares: float = 0.0
    error_squares: float = 0.0
    fault: str | None = None
    worst: float | None = None


@dataclass(frozen=True)
class _Piece:
    """Rows of a tensor, to be encoded or in blocks already. values: then a reader of what they stand for, where that is to be measured."""

    job: Job
    rows: RowReader
    values: RowReader | None
    start: int
    stop: int


class Workers:
    """`threads` threads that work ahead of whoever takes their results; `close()` ends them."""

    def __init__(self, threads: int):
        self._window = threads + 2
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ggpy-convert")

    def in_order(self, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
        """The results of the tasks, in their order; no more of them are under way, or done and not taken, than threads and two."""
        under_way: deque[Future[T]] = deque()
        for task in tasks:
            under_way.append(self._pool.submit(task))
            if len(under_way) >= self._window:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Stream:
    """Encodes and writes tensors with `threads` worker threads. A context manager; leaving it ends the workers.

    on_values(name, n): called after n more values of a tensor are written. allow_nonfinite: NaN and infinity are written as they are, to
    which F32 and the source's own type are wide enough.
    """

    def __init__(
        self,
        threads: int,
        encode_rows: EncodeRows,
        measure_error: bool,
        on_values: Callable[[str, int], None],
        allow_nonfinite: bool = False,
    ):
        self._encode_rows, self._measure_error, self._on_values = encode_rows, measure_error, on_values
        self._allow_nonfinite = allow_nonfinite
        self._workers = Workers(threads)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.close()

    def write(self, writer: GGUFWriter, jobs: list[Job], on_written: Callable[[str, Written], None] | None = None) -> dict[str, Written]:
        """Write every job's tensor, in order; by tensor name what was written. on_written(name, what) is called after each.

        Raises CheckpointError naming tensor and index for NaN or infinity, NeedsWider for values a format cannot hold.
        """
        chunks = self._workers.in_order(partial(self._encode, piece) for piece in _pieces(jobs, self._measure_error))
        done: dict[str, Written] = {}
        for job in jobs:
            done[job.tensor.name] = self._write_tensor(writer, job, chunks)
            if on_written:
                on_written(job.tensor.name, done[job.tensor.name])
        return done

    def _encode(self, piece: _Piece) -> _Chunk:
        job, values = piece.job, piece.rows(piece.start, piece.stop)
        if job.copied:
            fault = fault_in_blocks(job.tensor, piece.start, values, job.format)
            if fault and not self._allow_nonfinite:
                raise _not_finite(job, fault)
            return _measured(piece, values, fault)
        try:
            data, peak = self._encode_rows(values, job.format, importance=job.importance_of(piece.start))
        except ValueError:
            fault = fault_in_values(job.tensor, piece.start, widened(values))
            if fault is None:
                raise
            return self._as_it_is(job, values, fault)
        checksum = zlib.crc32(data.data)
        if not self._measure_error and peak < _F16_MAX:
            return _Chunk(data, checksum, peak)
        decoded, values = dequantize(data, job.format), widened(values)
        if not np.isfinite(decoded).all():
            raise NeedsWider(job.tensor.name, f"values up to {peak:g} overflow the half-precision numbers of {job.format.name}")
        decoded -= values
        return _Chunk(data, checksum, peak, _sum_of_squares(values), _sum_of_squares(decoded))

    def _as_it_is(self, job: Job, values: np.ndarray, fault: str) -> _Chunk:
        if not self._allow_nonfinite:
            raise _not_finite(job, fault)
        wide = widened(values)
        data = unchanged(values, wide, job.tensor.dtype, job.format.name)
        if data is None:
            raise NeedsWider(job.tensor.name, f"it {fault}, which {job.format.name} cannot hold")
        return _Chunk(data, zlib.crc32(data.data), 0.0, _sum_of_squares(np.where(np.isfinite(wide), wide, 0)), 0.0, fault)

    def _write_tensor(self, writer: GGUFWriter, job: Job, chunks: Iterator[_Chunk]) -> Written:
        pieces, peak, squares, error_squares, fault, worst = [], 0.0, 0.0, 0.0, None, None

        def encoded() -> Iterator[np.ndarray]:
            nonlocal peak, squares, error_squares, fault, worst
            for _ in job.pieces():
                chunk = next(chunks)
                pieces.append(WrittenPiece(chunk.data.nbytes, chunk.checksum))
                yield chunk.data
                peak, squares, error_squares = max(peak, chunk.peak), squares + chunk.squares, error_squares + chunk.error_squares
                fault, worst = fault or chunk.fault, chunk.worst if chunk.worst is None else max(worst or 0.0, chunk.worst)
                self._on_values(job.tensor.name, len(chunk.data) * job.tensor.columns)

        writer.write_tensor(job.tensor.name, encoded())
        if 0 < peak < _F16_SMALL and self._vanishes(peak, job.format):
            raise NeedsWider(
                job.tensor.name, f"its values, up to {peak:g}, are too small for the half-precision numbers of {job.format.name}"
            )
        error = math.sqrt(error_squares / squares) if squares else 0.0
        return Written(tuple(pieces), error if self._measure_error else None, fault, worst)

    def _vanishes(self, peak: float, format: BlockFormat) -> bool:
        """Whether even the largest value of a tensor becomes 0."""
        block = np.zeros((1, format.block_values), np.float32)
        block[0, 0] = peak
        return not dequantize(self._encode_rows(block, format).blocks, format).any()


def _pieces(jobs: list[Job], measure_error: bool) -> Iterator[_Piece]:
    for job in jobs:
        rows = (job.stored_rows or job.tensor.open)()
        encoded = job.blocks or job.tensor.raw is None or job.format.name in job.tensor.repacked
        values = job.tensor.open() if measure_error and job.copied and encoded else None
        yield from (_Piece(job, rows, values, start, stop) for start, stop in job.pieces())


def _measured(piece: _Piece, data: np.ndarray, fault: str | None) -> _Chunk:
    """A chunk of blocks that were not encoded here, compared with the values they stand for where the piece can read those."""
    data = np.ascontiguousarray(data)
    if piece.values is None:
        return _Chunk(data, zlib.crc32(data.data), fault=fault)
    values, format = widened(piece.values(piece.start, piece.stop)), piece.job.format
    differences = dequantize(data, format) - values
    peaks, errors = (np.abs(x).reshape(-1, format.block_values).max(axis=1) for x in (values, differences))
    worst = float(np.divide(errors, peaks, out=np.zeros_like(errors), where=peaks > 0).max(initial=0.0))
    peak = float(peaks.max(initial=0.0))
    return _Chunk(data, zlib.crc32(data.data), peak, _sum_of_squares(values), _sum_of_squares(differences), fault, worst)


def _sum_of_squares(values: np.ndarray) -> float:
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))


def _not_finite(job: Job, fault: str) -> CheckpointError:
    return CheckpointError(
        f"tensor {printable(job.tensor.origin)} {fault}, expected finite weights: damaged? (--allow-nonfinite or allow_nonfinite=True "
        "would keep it)"
    )
