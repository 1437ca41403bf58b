"""safetensors files, read by the letter of the format: a bounded JSON header, then tensors that cover the rest without gap or overlap.

Layout (https://github.com/huggingface/safetensors#format): uint64 header size, the header as UTF-8 JSON
{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}, possibly padded with spaces, then the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ggpy.converter.files import RangeFile, parse_json
from ggpy.errors import CheckpointError, printable
from ggpy.runtime.encode import FLOATS

MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 8

# fmt: off
DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}
# fmt: on


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in a file: `offset` is absolute, `n_bytes` was checked against dtype, shape and file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    file: RangeFile

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        return self.shape[-1] if self.shape else 1

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), (stop - start, columns) of a dtype in `FLOATS`, where everything before the last dimension counts as rows."""
        row_bytes = self.columns * DTYPE_BITS[self.dtype] // 8
        raw = self.file.read(self.offset + start * row_bytes, (stop - start) * row_bytes)
        return raw.view(FLOATS[self.dtype]).reshape(stop - start, self.columns)


class SafetensorsFile:
    """An open safetensors file: `tensors` by name, in the order of their data. Raises CheckpointError for every breach of the format."""

    def __init__(self, path: Path):
        self.path = path
        self._file = RangeFile(path)
        try:
            self.tensors = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _read_header(self) -> dict[str, StoredTensor]:
        head = self._file.read(0, min(self._file.size, 9)).tobytes()
        if len(head) < 9 or head[8:] != b"{":
            raise self._fault(f"not a safetensors file{_what_it_is(self._file.read(0, min(self._file.size, 64)).tobytes())}")
        header_bytes = int.from_bytes(head[:8], "little")
        left = self._file.size - 8
        if header_bytes > min(left, MAX_HEADER_BYTES):
            raise self._fault(f"header of {header_bytes} bytes, expected at most {min(left, MAX_HEADER_BYTES)}: cut short?")
        header = parse_json(self._file.read(8, header_bytes).tobytes(), f"{self.path}: header")
        self._check_metadata(header.pop("__metadata__", {}))
        found = [self._tensor(name, entry, 8 + header_bytes) for name, entry in header.items()]
        found.sort(key=lambda tensor: (tensor.offset, tensor.n_bytes))
        end = 8 + header_bytes
        for tensor in found:
            if tensor.offset != end:
                raise self._fault(
                    f"tensor {printable(tensor.name)} begins at byte {tensor.offset}, expected {end}, where the last one ends"
                )
            end += tensor.n_bytes
        if end != self._file.size:
            raise self._fault(f"tensors end at byte {end}, the file at {self._file.size}: cut short or damaged")
        return {tensor.name: tensor for tensor in found}

    def _tensor(self, name: str, entry: Any, data_offset: int) -> StoredTensor:
        where = f"tensor {printable(name)}"
        if type(entry) is not dict:
            raise self._fault(f"{where}: {printable(repr(entry), 80)}, expected an object with dtype, shape and data_offsets")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if type(dtype) is not str or dtype not in DTYPE_BITS:
            raise self._fault(f"{where}: dtype {printable(repr(dtype), 80)}, expected one of {', '.join(DTYPE_BITS)}")
        if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
            raise self._fault(f"{where}: shape {printable(repr(shape), 80)}, expected at most {_MAX_DIMENSIONS} sizes below 2^63")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._fault(f"{where}: data_offsets {printable(repr(offsets), 80)}, expected [begin, end]")
        bits = math.prod(shape) * DTYPE_BITS[dtype]
        if bits != 8 * (offsets[1] - offsets[0]):
            raise self._fault(f"{where}: {offsets[1] - offsets[0]} bytes for shape {shape} of {dtype}, expected {bits / 8:g}")
        return StoredTensor(name, dtype, tuple(shape), data_offset + offsets[0], offsets[1] - offsets[0], self._file)

    def _check_metadata(self, metadata: Any) -> None:
        if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
            raise self._fault("__metadata__ is not a map from strings to strings")

    def _fault(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {what}")


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return type(values) is list and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _what_it_is(head: bytes) -> str:
    if head.startswith(b"PK\x03\x04") or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return " but a pickle checkpoint, which can run code when it is loaded and is never read"
    if head.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer: the file itself was not downloaded; run `git lfs pull`"
    if head.startswith(b"GGUF"):
        return " but a GGUF file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return " but an HTML page: the download went wrong"
    return ""
