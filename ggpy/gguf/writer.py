"""Writing GGUF v3: metadata and tensors are declared, then tensor data streams in, and the file appears when it is complete."""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.errors import printable
from ggpy.gguf.atomic import AtomicFile
from ggpy.gguf.metadata import Metadata
from ggpy.gguf.partial import Abandoned
from ggpy.gguf.table import MAX_VALUES, align
from ggpy.gguf.types import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MAX_METADATA_BYTES,
    WRITTEN_TENSOR_NAME_BYTES,
    ValueType,
)
from ggpy.gguf.values import encode_text, encode_value

Chunk = bytes | bytearray | memoryview | np.ndarray


@dataclass(frozen=True, slots=True)
class _Declared:
    shape: tuple[int, ...]
    format: BlockFormat
    n_bytes: int
    offset: int  # in the data section


class GGUFWriter:
    """A new GGUF file at `path`, for use in a `with` statement.

    Declare all metadata (`add`) and tensors (`add_tensor`) first; the first `write_tensor` fixes them and writes the header. Data lies in
    the order of declaration, whatever the order of writing. The file gets its name only when the block is left without an exception and
    every tensor was written; anything else leaves `path` as it was.

    alignment: of tensor data, a power of two. force: replace an existing file, which is refused otherwise (GGPyError). Values, names and
    shapes that GGUF cannot hold are ValueError; a full disk or one that fails is GGPyError.

    resume: what writers of `path` left that were killed is not removed but offered in `abandoned`, to be continued by `adopt` before the
    first `write_tensor`.
    """

    def __init__(self, path: str | os.PathLike[str], *, alignment: int = DEFAULT_ALIGNMENT, force: bool = False, resume: bool = False):
        if alignment < 1 or alignment & (alignment - 1) or alignment >= 2**32:
            raise ValueError(f"alignment {alignment} is not a power of two that fits 32 bits")
        self.path, self.alignment = path, alignment
        self._file = AtomicFile(path, force=force, resume=resume)
        self._entries: dict[str, tuple[ValueType, bytes]] = {}
        self._tensors: dict[str, _Declared] = {}
        self._data_bytes = 0  # of the data section so far, padding included
        self._data_offset: int | None = None  # None until the header is written
        self._written: set[str] = set()

    def __enter__(self) -> GGUFWriter:
        self._file.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as fault:
                self._file.__exit__(type(fault), fault, fault.__traceback__)
                raise
        self._file.__exit__(kind, error, trace)

    @property
    def partial(self) -> Path:
        """The unfinished file, to be read back: complete once every tensor is written. Asking for it ends the declarations.

        ValueError outside the `with` block.
        """
        if self._data_offset is None:
            self._write_header()
        return self._file.partial

    @property
    def abandoned(self) -> tuple[Abandoned, ...]:
        """Unfinished files of killed writers that may be continued; none without `resume`."""
        return tuple(self._file.abandoned)

    @property
    def removed_bytes(self) -> int:
        """How much of the disk was freed of unfinished files of killed writers."""
        return self._file.removed_bytes

    def adopt(self, abandoned: Abandoned) -> None:
        """Continue that file, of which the caller knows that it was begun with the same header; the others are removed."""
        self._require_open_header()
        self._file.adopt(abandoned)

    def drop_abandoned(self) -> None:
        """Remove what is not to be continued."""
        self._file.drop_abandoned()

    def keep(self, wanted: bool = True) -> None:
        """Whether to leave the unfinished file, to be continued by another writer, should the block end with an exception."""
        self._file.kept = wanted

    def header_digest(self) -> str:
        """SHA-256 of all that comes before the data, as declared so far, in hexadecimal."""
        return hashlib.sha256(self._header()).hexdigest()

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The tensors declared so far."""
        return tuple(self._tensors)

    def data_range(self, name: str) -> tuple[int, int]:
        """(offset, bytes) of a declared tensor's data in the file. Asking for it ends the declarations."""
        if self._data_offset is None:
            self._write_header()
        assert self._data_offset is not None
        return self._data_offset + self._tensors[name].offset, self._tensors[name].n_bytes

    def skip_tensor(self, name: str) -> None:
        """Take a tensor for written: its data lies in the adopted file, as the caller has checked."""
        self._written.add(name)

    def header(self) -> bytes:
        """All that comes before the data, as declared so far."""
        return self._header()

    @property
    def file_size(self) -> int:
        """Bytes of the finished file, as declared so far."""
        return self._data_offset + self._data_bytes if self._data_offset is not None else self._layout(len(self._header()))[1]

    def add(self, key: str, value: Any, type: ValueType | None = None) -> None:
        """Declare a key. `type` is that of the value or, for a list or array, that of its elements.

        Without it: str, bool, float32 for floats; the first of uint32, int32, uint64, int64 that holds an int (in lists int32 first);
        NumPy values as their own type. An empty list needs it.
        """
        try:
            kind, raw = encode_value(value, type)
        except (ValueError, TypeError) as error:
            raise ValueError(f"key '{printable(key, 80)}': {error}") from None
        self._add_entry(key, kind, raw)

    def copy(self, metadata: Metadata, key: str, name: str | None = None) -> None:
        """Declare a key, as `name` if given, with the value it has in an open file, byte for byte."""
        self._add_entry(name or key, metadata.value_type(key), metadata.raw(key))

    def add_tensor(self, name: str, shape: Sequence[int], format: BlockFormat) -> None:
        """Declare a tensor. `shape`: rows first, as NumPy has it; 1 to 4 dimensions, the last a whole number of blocks."""
        self._require_open_header()
        shape = tuple(map(int, shape))
        label = f"tensor '{printable(name, 80)}'"
        if name in self._tensors:
            raise ValueError(f"{label} is declared twice")
        if len(name.encode("utf-8")) > WRITTEN_TENSOR_NAME_BYTES:
            raise ValueError(f"{label}: its name is longer than the {WRITTEN_TENSOR_NAME_BYTES} bytes that llama.cpp reads")
        if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 0 or math.prod(max(d, 1) for d in shape) > MAX_VALUES:
            raise ValueError(f"{label}: shape {shape} is not 1 to {MAX_DIMENSIONS} dimensions of together at most 2^60 values")
        try:
            n_bytes = math.prod(shape[:-1]) * format.row_bytes(shape[-1])
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
        self._tensors[name] = _Declared(shape, format, n_bytes, self._data_bytes)
        self._data_bytes += align(n_bytes, self.alignment)

    def amend(self, values: Mapping[str, tuple[Any, ValueType | None]]) -> None:
        """Give declared keys other values, (value, type as of `add`), also when the header is written: they must take as many bytes."""
        for key, (value, type) in values.items():
            kind, raw = encode_value(value, type)
            declared = self._entries[key]
            if (kind, len(raw)) != (declared[0], len(declared[1])):
                raise ValueError(f"key '{printable(key, 80)}' was declared with {len(declared[1])} bytes, not {len(raw)}")
            self._entries[key] = kind, raw
        if self._data_offset is not None:
            self._file.write_at(0, self._header())

    def write_tensor(self, name: str, data: Chunk | Iterable[Chunk]) -> None:
        """Write a declared tensor's blocks: one buffer, or chunks that follow each other.

        Arrays hold the bytes as uint8, or numbers of the type the format stores. Their bytes must make up the tensor exactly.
        """
        if name not in self._tensors or name in self._written:
            state = "written already" if name in self._written else "not declared"
            raise ValueError(f"tensor '{printable(name, 80)}' is {state}")
        if self._data_offset is None:
            self._write_header()
        assert self._data_offset is not None
        tensor, done = self._tensors[name], 0
        chunks: Any = (data,) if isinstance(data, bytes | bytearray | memoryview | np.ndarray) else data
        for chunk in chunks:
            raw = _as_bytes(chunk, tensor.format)
            if done + len(raw) > tensor.n_bytes:
                raise ValueError(f"tensor '{printable(name, 80)}' has {tensor.n_bytes} bytes; {done + len(raw)} were given")
            self._file.write_at(self._data_offset + tensor.offset + done, raw)
            done += len(raw)
        if done != tensor.n_bytes:
            raise ValueError(f"tensor '{printable(name, 80)}' has {tensor.n_bytes} bytes; only {done} were given")
        self._written.add(name)

    def _add_entry(self, key: str, kind: ValueType, raw: bytes) -> None:
        self._require_open_header()
        if not 0 < len(key.encode("utf-8")) <= MAX_KEY_BYTES:
            raise ValueError(f"key '{printable(key, 80)}' is empty or longer than {MAX_KEY_BYTES} bytes")
        if key == ALIGNMENT_KEY and (kind, raw) != (ValueType.UINT32, struct.pack("<I", self.alignment)):
            raise ValueError(f"key '{ALIGNMENT_KEY}' does not say {self.alignment}, the alignment this file is written with")
        if key in self._entries:
            raise ValueError(f"key '{printable(key, 80)}' is declared twice")
        self._entries[key] = kind, raw

    def _require_open_header(self) -> None:
        if self._data_offset is not None:
            raise ValueError("the header is written: declare all keys and tensors before the first write_tensor")

    def _header(self) -> bytes:
        entries = self._entries
        if self.alignment != DEFAULT_ALIGNMENT and ALIGNMENT_KEY not in entries:
            entries = {ALIGNMENT_KEY: encode_value(self.alignment, ValueType.UINT32), **entries}
        parts = [MAGIC, struct.pack("<IQQ", 3, len(self._tensors), len(entries))]
        for key, (kind, raw) in entries.items():
            parts += encode_text(key), struct.pack("<I", kind), raw
        for name, tensor in self._tensors.items():
            rank = len(tensor.shape)
            dimensions = struct.pack(f"<I{rank}Q", rank, *reversed(tensor.shape))
            parts += encode_text(name), dimensions, struct.pack("<IQ", tensor.format.ggml_type, tensor.offset)
        return b"".join(parts)

    def _layout(self, header_bytes: int) -> tuple[int, int]:
        """Where the data section begins, and where the file ends."""
        data_offset = align(header_bytes, self.alignment) if self._tensors else header_bytes
        return data_offset, data_offset + self._data_bytes

    def _write_header(self) -> None:
        header = self._header()
        if len(header) > MAX_METADATA_BYTES or max(len(self._entries), len(self._tensors)) >= MAX_ENTRIES:
            raise ValueError(
                f"{len(self._entries)} keys and {len(self._tensors)} tensors take {len(header)} bytes before the data; "
                f"fewer than {MAX_ENTRIES} and {MAX_METADATA_BYTES} bytes are allowed"
            )
        data_offset, file_size = self._layout(len(header))
        self._file.resize(file_size)
        self._file.write_at(0, header)
        self._data_offset = data_offset

    def _finish(self) -> None:
        if self._data_offset is None:
            self._write_header()
        missing = [name for name in self._tensors if name not in self._written and self._tensors[name].n_bytes]
        if missing:
            raise ValueError(f"{len(missing)} declared tensors were not written, the first of them '{printable(missing[0], 80)}'")


def _as_bytes(chunk: Chunk, block_format: BlockFormat) -> memoryview:
    if not isinstance(chunk, np.ndarray):
        return memoryview(chunk).cast("B")
    stored = block_format.fields[0].dtype if block_format.block_values == 1 else np.dtype(np.uint8)
    if chunk.dtype not in (np.uint8, stored):
        raise ValueError(
            f"{block_format.name} data is given as uint8 blocks{f' or {stored}' if stored != np.uint8 else ''}, not {chunk.dtype}"
        )
    return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
