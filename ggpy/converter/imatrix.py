"""Importance matrices: for every matrix of a model the mean square of what its columns are multiplied by, as llama-imatrix collects it.

A weight that meets large activations should be stored with a small error. Read are llama.cpp's GGUF files and its older binary ones
(`.dat`), written are GGUF files. Source of both: llama.cpp, common/imatrix-loader.cpp and tools/imatrix/imatrix.cpp; of how sums become
importance: tools/quantize/quantize.cpp (`load_imatrix`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BLOCKS
from ggpy.converter.files import RangeFile
from ggpy.errors import GGPyError, printable
from ggpy.gguf import GGUFWriter, Tensor, ValueType, open_gguf
from ggpy.gguf.types import MAGIC

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_NAME = 1024
_MAX_DATASET = 1 << 16
_MAX_COUNT = 1 << 53  # what a count may be and still be exact in a float


@dataclass(frozen=True)
class Collected:
    """What was seen of one tensor: sums, float32 (matrices, columns), of squared inputs; counts, int64 (matrices,), of how many of them.

    Where the counts of several matrices, as of experts, were not kept apart, all columns together are one matrix.
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def importance(self) -> NDArray[np.float32]:
        """Mean squares, float32 (matrices, columns); 1 throughout for a matrix that was never used."""
        used = self.counts > 0
        counts = np.where(used, self.counts, 1).astype(np.float32)
        return np.where(used[:, None], self.sums / counts[:, None], np.float32(1))


@dataclass(frozen=True)
class ImportanceMatrix:
    """entries: tensor name -> what was seen of it. datasets: the texts that were read. chunks: how many pieces of them, of chunk_tokens
    tokens each, or 0 where that is not known."""

    entries: Mapping[str, Collected]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_tokens: int = 0
    path: Path = field(default=Path("imatrix"), compare=False)

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The importance of a tensor's columns: float32 (columns,) or, for a stack of matrices, (matrices, columns). KeyError for a tensor
        of which nothing is known, GGPyError for one of another size."""
        entry = self.entries[name]
        columns, matrices = shape[-1], int(np.prod(shape[:-2], dtype=np.int64))
        if entry.sums.size != columns * matrices:
            raise GGPyError(
                f"{printable(self.path)}: tensor {printable(name)} has {entry.sums.size} columns here and "
                f"{columns * matrices} in the model: made for another model?"
            )
        importance = entry.importance.reshape(matrices, columns)
        return importance if matrices > 1 else importance[0]

    def metadata(self) -> dict[str, str | int]:
        """What a quantized file says of the importance matrix it was made with."""
        found: dict[str, str | int] = {"quantize.imatrix.file": _cut(self.path.name)}
        if self.datasets:
            found["quantize.imatrix.dataset"] = _cut(self.datasets[0])
        found["quantize.imatrix.entries_count"] = len(self.entries)
        if self.chunks:
            found["quantize.imatrix.chunks_count"] = self.chunks
        return found


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """The importance matrix in a GGUF or an older binary file. Raises GGPyError for what is neither, or holds numbers that are none."""
    path = Path(path)
    file = RangeFile(path)
    try:
        is_gguf = file.size >= len(MAGIC) and file.read(0, len(MAGIC)).tobytes() == MAGIC
        matrix = None if is_gguf else _Legacy(file).read()
    finally:
        file.close()
    matrix = matrix or _read_gguf(path)
    if not matrix.entries:
        raise GGPyError(f"{printable(path)}: an importance matrix without entries")
    return matrix


@dataclass(frozen=True)
class Extra:
    """A tensor beside those of an importance matrix, int64 of any shape: read() gives it in pieces."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Iterable[np.ndarray]]


def write_imatrix(
    matrix: ImportanceMatrix,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    metadata: Mapping[str, Any] | None = None,
    extra: Iterable[Extra] = (),
) -> None:
    """Write it as GGUF, as llama-imatrix does. GGPyError for an existing file unless `force`, and for names that GGUF has no room for.

    metadata, extra: more keys and tensors, which other readers pass over.
    """
    extra = tuple(extra)
    with GGUFWriter(path, force=force) as writer:
        writer.add("general.type", "imatrix")
        writer.add("imatrix.datasets", list(matrix.datasets), ValueType.STRING)
        writer.add("imatrix.chunk_count", matrix.chunks, ValueType.UINT32)
        writer.add("imatrix.chunk_size", matrix.chunk_tokens, ValueType.UINT32)
        for key, value in (metadata or {}).items():
            writer.add(key, value)
        data: dict[str, np.ndarray] = {}
        for name, entry in sorted(matrix.entries.items()):
            data[name + _SUMS] = entry.sums
            data[name + _COUNTS] = entry.counts.astype(np.float32)[:, None]
        try:
            for name, values in data.items():
                writer.add_tensor(name, values.shape, BLOCKS["F32"])
            for tensor in extra:
                writer.add_tensor(tensor.name, tensor.shape, BLOCKS["I64"])
        except ValueError as error:
            raise GGPyError(f"{printable(path)}: {printable(error)}") from None
        for name, values in data.items():
            writer.write_tensor(name, values)
        for tensor in extra:
            writer.write_tensor(tensor.name, tensor.read())


def _read_gguf(path: Path) -> ImportanceMatrix:
    with open_gguf(path) as file:
        if not any(name.endswith(_SUMS) for name in file.tensors):
            raise GGPyError(f"{printable(path)}: no importance matrix (no tensor is called NAME{_SUMS})")
        metadata = file.metadata
        datasets = tuple(metadata.strings("imatrix.datasets"))
        chunks = metadata.integer("imatrix.chunk_count", minimum=0, maximum=2**32 - 1)
        chunk_tokens = metadata.integer("imatrix.chunk_size", minimum=0, maximum=2**32 - 1)
        parts = {name: _floats(path, tensor) for name, tensor in file.tensors.items() if name.endswith((_SUMS, _COUNTS))}
    entries = {}
    for name in sorted({name.removesuffix(_SUMS).removesuffix(_COUNTS) for name in parts}):
        if name + _SUMS not in parts or name + _COUNTS not in parts:
            raise GGPyError(f"{printable(path)}: {printable(name)} has only one of {_SUMS} and {_COUNTS}")
        entries[name] = _collected(path, name, parts[name + _SUMS], parts[name + _COUNTS])
    return ImportanceMatrix(entries, datasets, chunks, chunk_tokens, path)


def _floats(path: Path, tensor: Tensor) -> NDArray[np.float32]:
    if tensor.format.name != "F32":
        raise GGPyError(f"{printable(path)}: tensor {printable(tensor.name)} is {tensor.format.name}, expected F32")
    return tensor.dequantize().ravel()


def _collected(path: Path, name: str, sums: NDArray[np.float32], counts: np.ndarray) -> Collected:
    """Checked; sums (values,), counts (matrices,)."""
    where = f"{printable(path)}: {printable(name)}"
    if not len(counts) or not len(sums) or len(sums) % len(counts):
        raise GGPyError(f"{where}: {len(sums)} sums are not the same number for each of {len(counts)} matrices")
    for values, what in ((sums, "sum of squares"), (counts, "count")):
        usable = (values >= 0) & (values < np.inf)
        if not usable.all():
            at = int(np.argmin(usable))
            raise GGPyError(f"{where}: {what} {at} is {values[at]}, expected a finite number from 0 on")
    if counts.max() > _MAX_COUNT:
        raise GGPyError(f"{where}: a count of {counts.max():g}, expected at most {_MAX_COUNT}")
    whole = np.floor(counts.astype(np.float64) + 0.5).astype(np.int64)
    return Collected(sums.reshape(len(counts), -1), whole)


class _Legacy:
    """The older format: int32 lengths, names, sums; at the end, where it is there, the number of chunks and the text they are of."""

    def __init__(self, file: RangeFile):
        self._file, self._at = file, 0

    def read(self) -> ImportanceMatrix:
        n_entries = self._integer("number of entries", 1, self._file.size // 16)
        entries: dict[str, Collected] = {}
        for _ in range(n_entries):
            name = self._text("length of a name", 1, _MAX_NAME)
            if name in entries:
                raise self._refuse(f"entry {printable(name)} is there twice")
            calls = self._integer(f"number of calls of {printable(name)}", -(2**31), 2**31 - 1)
            n_values = self._integer(f"number of values of {printable(name)}", 1, (self._file.size - self._at - 4) // 4)
            sums = self._take(4 * n_values, "values").view("<f4").astype(np.float32)
            entries[name] = _collected(self._file.path, name, sums, np.array([max(calls, 1)]))  # without calls the sums are means
        chunks, datasets = 0, ()
        if self._at < self._file.size:
            chunks = max(0, self._integer("number of chunks", -(2**31), 2**31 - 1))
            dataset = self._text("length of the dataset's name", 0, _MAX_DATASET) if self._at < self._file.size else ""
            datasets = (dataset,) if dataset else ()
        return ImportanceMatrix(entries, datasets, chunks, 0, self._file.path)

    def _integer(self, what: str, minimum: int, maximum: int) -> int:
        value = int(self._take(4, what).view("<i4")[0])
        if not minimum <= value <= maximum:
            raise self._refuse(f"{what} is {value} at byte {self._at - 4}, expected {minimum} to {maximum}")
        return value

    def _text(self, what: str, minimum: int, maximum: int) -> str:
        length = self._integer(what, minimum, maximum)
        try:
            return self._take(length, what).tobytes().decode("utf-8")
        except UnicodeDecodeError:
            raise self._refuse(f"a name at byte {self._at - length} is not UTF-8") from None

    def _take(self, count: int, what: str) -> np.ndarray:
        if count > self._file.size - self._at:
            raise self._refuse(f"ends at byte {self._file.size}, in the {what}")
        self._at += count
        return self._file.read(self._at - count, count)

    def _refuse(self, what: str) -> GGPyError:
        return GGPyError(f"{printable(self._file.path)}: no importance matrix, neither as GGUF nor in the older format: {what}")


def _cut(text: str) -> str:
    """At most 127 bytes of UTF-8: llama-quantize keeps no more."""
    return text.encode("utf-8", "replace")[:127].decode("utf-8", "ignore")
