"""Files of statistics: llama.cpp's importance matrices, with exact sums beside the rounded ones, and Gram matrices where they were counted.

`NAME.in_sum2` and `NAME.counts` are llama-imatrix's, for every tensor. Tensors that share their inputs are one line of the key
`ggpy.statistics.inputs`, by their names; under the first of these are `NAME.squares`, Σ x² in units of 2^-24, int64 (matrices, columns),
and, where they were counted, `NAME.gram`, likewise Σ x xᵀ on and right of the diagonal, int64 (matrices, columns * (columns + 1) / 2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggpy.converter.imatrix import Collected, Extra, ImportanceMatrix, write_imatrix
from ggpy.errors import GGPyError, printable
from ggpy.gguf import GGUFFile, open_gguf
from ggpy.quantize.counting import Counted, unpacked
from ggpy.quantize.scratch import Scratch
from ggpy.quantize.statistics import LARGEST, UNIT, Gram, GramSums

INPUTS, SQUARES, GRAM = "ggpy.statistics.inputs", ".squares", ".gram"
_PIECE = 1 << 20  # numbers that are added up at once
_MAX_UNITS = int(LARGEST / UNIT)


@dataclass(frozen=True)
class Counts:
    """Squares in units, int64 (matrices, columns), and tokens, int64 (matrices,), of tensors that share their inputs."""

    names: tuple[str, ...]
    squares: NDArray[np.int64]
    tokens: NDArray[np.int64]
    has_gram: bool


class StatisticsFile:
    """An open file of statistics. A context manager. Raises GGPyError for a file that is none, or not as above."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._file: GGUFFile = open_gguf(self.path)
        try:
            metadata = self._file.metadata
            if INPUTS not in metadata:
                raise self._refuse(
                    f"no statistics of ggpy calibrate: key {INPUTS} is missing (llama-imatrix merges its own, with --in-file)"
                )
            self.datasets = tuple(metadata.strings("imatrix.datasets", []))
            self.chunks = metadata.integer("imatrix.chunk_count", minimum=0, maximum=2**32 - 1)
            self.chunk_tokens = metadata.integer("imatrix.chunk_size", minimum=0, maximum=2**32 - 1)
            self.counts = tuple(self._counts(tuple(line.split(" "))) for line in metadata.strings(INPUTS))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> StatisticsFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def gram(self, counts: Counts, number: int = 0) -> Gram | None:
        """Σ x xᵀ of one matrix of tensors that share their inputs; None where it was not counted."""
        if not counts.has_gram:
            return None
        columns = counts.squares.shape[1]
        values = np.concatenate(list(self.packed(counts, number)))
        return GramSums(unpacked(values, columns), int(counts.tokens[number])).gram()

    def packed(self, counts: Counts, number: int) -> Iterator[NDArray[np.int64]]:
        """The numbers of a Gram matrix as they lie in the file, in pieces."""
        n_numbers = _triangle(counts.squares.shape[1])
        row = self._file.tensors[counts.names[0] + GRAM].data.reshape(len(counts.squares), -1)[number]
        for start in range(0, n_numbers, _PIECE):
            values = np.ascontiguousarray(row[8 * start : 8 * min(start + _PIECE, n_numbers)]).view("<i8").astype(np.int64)
            if np.abs(values).max(initial=0) > _MAX_UNITS:
                raise self._refuse(f"{printable(counts.names[0])}{GRAM}: a sum beyond {LARGEST:g}")
            yield values

    def _counts(self, names: tuple[str, ...]) -> Counts:
        name = printable(names[0])
        squares, tokens = self._file.tensors.get(names[0] + SQUARES), self._file.tensors.get(names[0] + ".counts")
        if squares is None or tokens is None or squares.format.name != "I64" or tokens.format.name != "F32" or len(squares.shape) != 2:
            raise self._refuse(f"{name} has no {SQUARES} (I64, two dimensions) and .counts (F32)")
        units, counted = squares.data.view("<i8").astype(np.int64), tokens.dequantize().ravel()
        if len(units) != len(counted) or not (units >= 0).all() or not (units <= _MAX_UNITS).all():
            raise self._refuse(f"{name}: sums of squares are not from 0 to {LARGEST:g} for each of {len(counted)} matrices")
        if not ((counted >= 0) & (counted < 2**24)).all():  # what a float counts exactly
            raise self._refuse(f"{name}: a count is not from 0 to {2**24}")
        gram, expected = self._file.tensors.get(names[0] + GRAM), (len(units), _triangle(units.shape[1]))
        if gram is not None and (gram.format.name, gram.shape) != ("I64", expected):
            raise self._refuse(f"{name}{GRAM} is {gram.format.name} {gram.shape}, expected I64 {expected}")
        return Counts(names, units, counted.astype(np.int64), gram is not None)

    def _refuse(self, what: str) -> GGPyError:
        return GGPyError(f"{printable(self.path)}: {what}")


def write_statistics(
    path: str | os.PathLike[str],
    counted: Sequence[Counted],
    scratch: Scratch,
    datasets: Sequence[str],
    chunks: int,
    chunk_tokens: int,
    *,
    force: bool = False,
) -> None:
    """Write what was counted. GGPyError for an existing file unless `force`."""
    extra = []
    for entry in counted:
        extra.append(_squares(entry.names[0], np.stack(entry.squares)))
        if entry.grams:

            def grams(entry: Counted = entry) -> Iterator[np.ndarray]:
                for place in entry.grams:
                    yield scratch.read(place, 0, 1).reshape(-1)

            extra.append(Extra(entry.names[0] + GRAM, (len(entry.grams), _triangle(entry.columns)), grams))
    counts = [Counts(e.names, np.stack(e.squares), np.array(e.tokens, np.int64), bool(e.grams)) for e in counted]
    _write(Path(path), counts, extra, datasets, chunks, chunk_tokens, force)


def merge_statistics(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, force: bool = False) -> None:
    """Add up what was counted of one model over different texts: the same bytes in whatever order, and those of all counted at once.

    Raises GGPyError for files of different models, or of which only some have Gram matrices.
    """
    files = [StatisticsFile(path) for path in paths]
    try:
        first = files[0]
        for other in files[1:]:
            _require_alike(first, other)
        sums, extra = [], []
        for i, counts in enumerate(first.counts):
            squares = sum((file.counts[i].squares for file in files[1:]), first.counts[i].squares)
            if squares.max(initial=0) > _MAX_UNITS:
                raise GGPyError(f"{printable(counts.names[0])}: squared inputs add up to more than {LARGEST:g}: merge fewer files")
            tokens = sum((file.counts[i].tokens for file in files[1:]), counts.tokens)
            sums.append(Counts(counts.names, squares, tokens, counts.has_gram))
            extra.append(_squares(counts.names[0], squares))
            if counts.has_gram:

                def grams(i: int = i, n_matrices: int = len(squares)) -> Iterator[np.ndarray]:
                    for number in range(n_matrices):
                        yield from (np.sum(pieces, axis=0) for pieces in zip(*(f.packed(f.counts[i], number) for f in files), strict=True))

                extra.append(Extra(counts.names[0] + GRAM, (len(squares), _triangle(squares.shape[1])), grams))
        datasets = sorted({name for file in files for name in file.datasets})
        _write(Path(out), sums, extra, datasets, sum(file.chunks for file in files), first.chunk_tokens, force)
    finally:
        for file in files:
            file.__exit__()


def _require_alike(first: StatisticsFile, other: StatisticsFile) -> None:
    where = f"{printable(other.path)} and {printable(first.path)}"
    for a, b in zip(first.counts, other.counts, strict=False):
        if (a.names, a.squares.shape) != (b.names, b.squares.shape):
            raise GGPyError(f"{where} are of different models: {printable(b.names[0])} is {b.squares.shape}, {printable(a.names[0])} "
                            f"{a.squares.shape}")  # fmt: skip
        if a.has_gram != b.has_gram:
            raise GGPyError(f"{where}: only one of them has Hessians (--hessians)")
    if len(first.counts) != len(other.counts):
        raise GGPyError(f"{where} are of different models: {len(other.counts)} and {len(first.counts)} groups of tensors")
    if first.chunk_tokens != other.chunk_tokens:
        raise GGPyError(f"{where} have chunks of {other.chunk_tokens} and {first.chunk_tokens} tokens")


def _write(
    path: Path, counts: Sequence[Counts], extra: Sequence[Extra], datasets: Sequence[str], chunks: int, chunk_tokens: int, force: bool
) -> None:
    entries = {}
    for c in counts:
        sums = np.multiply(c.squares, UNIT, dtype=np.float64).astype(np.float32)
        entries |= {name: Collected(sums, c.tokens) for name in c.names}
    lines = [" ".join(c.names) for c in counts]
    write_imatrix(
        ImportanceMatrix(entries, tuple(datasets), chunks, chunk_tokens), path, force=force, metadata={INPUTS: lines}, extra=extra
    )


def _squares(name: str, units: NDArray[np.int64]) -> Extra:
    return Extra(name + SQUARES, units.shape, lambda: [units])


def _triangle(columns: int) -> int:
    return columns * (columns + 1) // 2
