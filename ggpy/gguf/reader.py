"""Reading GGUF: the file is mapped, its header, metadata and tensor table are checked, tensor data stays where it lies."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from ggpy.errors import GGUFError
from ggpy.gguf.cursor import Cursor
from ggpy.gguf.foreign import PEEK_BYTES, name_foreign
from ggpy.gguf.metadata import Entry, Metadata
from ggpy.gguf.split import open_parts, split_count
from ggpy.gguf.table import read_tensors
from ggpy.gguf.types import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, HEADER_BYTES, MAGIC, MAX_ENTRIES, MAX_KEY_BYTES, VERSIONS, ValueType
from ggpy.gguf.values import read_value, read_value_type

_SMALLEST_ENTRY = 8 + 1 + 4 + 1  # a key of one byte and a one-byte value
_SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8  # a nameless tensor of one dimension


def open_gguf(path: str | os.PathLike[str], *, only_this_part: bool = False) -> GGUFFile:
    """Open a GGUF file (version 2 or 3, little-endian) for reading; use it in a `with` statement.

    Every count, length and offset is checked against the file before anything is made of it, so what comes back can be trusted to lie
    inside the file. For any part of a model split over several files, all parts are opened as one; `only_this_part` opens it alone.
    Raises GGUFError for everything that is not a legal GGUF file, or not a readable regular file, and for parts that are missing or do not
    belong together.
    """
    file = _open_one(path)
    if only_this_part:
        return file
    try:
        if split_count(file.metadata) == 1:
            return file
        first, *others = open_parts(file, _open_one)
    except BaseException:
        file.close()
        raise
    first.join(others)
    return first


def _open_one(path: str | os.PathLike[str]) -> GGUFFile:
    descriptor = _open_regular(path)
    try:
        return GGUFFile(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def parse_metadata(path: str | os.PathLike[str], header: bytes) -> Metadata:
    """The metadata in the head of a file, magic to tensor table; `path` names it in errors. Raises GGUFError."""
    cursor = Cursor(path, header)
    _, _, n_keys = _read_header(cursor)
    return Metadata(path, _read_entries(cursor, n_keys), lambda start, stop: header[start:stop])


class GGUFFile:
    """An open GGUF file.

    path: as given. version: 2 or 3. alignment: of tensor data, in bytes. metadata: the key-value pairs. tensors: name -> Tensor, in file
    order. data_offset: where tensor data begins. file_size: in bytes. Of a model split over several files, this is the first one, but
    `tensors` and `file_size` are those of all together.

    The file is mapped, not read: replace a model by renaming a new file over it, never by overwriting it in place.
    """

    def __init__(self, path: str | os.PathLike[str], descriptor: int):
        self.path = path
        status = os.fstat(descriptor)
        self.file_size = status.st_size
        self._stamp = (status.st_size, status.st_mtime_ns)
        self._map = _map_file(path, descriptor, self.file_size)
        try:
            cursor = Cursor(path, self._map)
            self.version, n_tensors, n_keys = _read_header(cursor)
            self.metadata = Metadata(path, _read_entries(cursor, n_keys), self._read)
            self.alignment = _alignment(self.metadata)
            self.data_offset, self.tensors = read_tensors(cursor, n_tensors, self.alignment, self._view)
        except BaseException:
            self._map.close()
            raise
        self._others: tuple[GGUFFile, ...] = ()
        self._bytes: np.ndarray | None = np.frombuffer(self._map, np.uint8)  # (file_size,), read-only as the map is
        self._descriptor: int | None = descriptor

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GGUFFile {os.fspath(self.path)!r}: {len(self.metadata)} keys, {len(self.tensors)} tensors>"

    @property
    def closed(self) -> bool:
        return self._bytes is None

    @property
    def paths(self) -> list[Path]:
        """The files that the model lies in: this one and, where it is split, the others."""
        return [Path(self.path), *(Path(other.path) for other in self._others)]

    def path_of(self, name: str) -> Path:
        """The file that holds the tensor `name`."""
        return Path(next((other.path for other in self._others if name in other.tensors), self.path))

    def join(self, others: Sequence[GGUFFile]) -> None:
        """Take the tensors of the other parts in; they are closed with this one."""
        self._others = tuple(others)
        for other in others:
            self.tensors |= other.tensors
            self.file_size += other.file_size

    def close(self) -> None:
        """Close the file. Views that `Tensor.data` gave stay valid: the map goes when the last of them does."""
        for other in self._others:
            other.close()
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = self._bytes = None
        try:
            self._map.close()
        except BufferError:
            del self._map  # arrays still look into it; the last one unmaps

    def check_unchanged(self) -> None:
        """Raise GGUFError if the file was written to or truncated since it was opened: reading a truncated map would kill the process."""
        if self._descriptor is None:
            raise GGUFError(self.path, None, "the file is closed")
        for other in self._others:
            other.check_unchanged()
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            size = f"it had {self._stamp[0]} bytes and has {status.st_size}" if status.st_size != self._stamp[0] else "it was written to"
            raise GGUFError(self.path, None, f"the file changed while it was open ({size}); replace a model by renaming a new file over it")

    def _view(self, offset: int, n_bytes: int) -> np.ndarray:
        if self._bytes is None:
            raise GGUFError(self.path, offset, "the file is closed")
        return self._bytes[offset : offset + n_bytes]

    def _read(self, start: int, stop: int) -> bytes:
        return self._view(start, stop - start).tobytes()


def _open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file; never blocks, so a FIFO or a device is refused at once."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise GGUFError(path, None, getattr(error, "strerror", None) or str(error)) from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    raise GGUFError(path, None, f"{kinds.get(stat.S_IFMT(mode), 'not a regular file')}, not a GGUF file")


def _map_file(path: str | os.PathLike[str], descriptor: int, size: int) -> mmap.mmap:
    head = os.pread(descriptor, PEEK_BYTES, 0) if hasattr(os, "pread") else os.read(descriptor, PEEK_BYTES)
    if not size or not head:
        raise GGUFError(path, None, "the file is empty")
    if not head.startswith(MAGIC):
        raise GGUFError(path, None, name_foreign(head, size))
    if size < HEADER_BYTES:
        raise GGUFError(path, size, f"the header takes {HEADER_BYTES} bytes, but the file has {size}: it is cut short")
    try:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = "not enough address space" if getattr(error, "errno", None) == errno.ENOMEM else str(error)
        raise GGUFError(path, None, f"cannot be mapped into memory: {reason}") from None


def _read_header(cursor: Cursor) -> tuple[int, int, int]:
    """Version, number of tensors, number of keys."""
    cursor.take(len(MAGIC), "the magic")
    version = cursor.u32("the version")
    if version not in VERSIONS:
        supported = " and ".join(map(str, VERSIONS))
        if version and version & 0xFFFF == 0:
            cursor.fault(f"version 0x{version:08x}: the file is big-endian; versions {supported}, little-endian, are supported", 4)
        cursor.fault(f"version {version} is not supported; versions {supported} are", 4)
    n_tensors = cursor.u64("the number of tensors")
    n_keys = cursor.u64("the number of keys")
    left = len(cursor.buffer) - cursor.at
    for count, what, smallest, offset in ((n_tensors, "tensors", _SMALLEST_TENSOR, 8), (n_keys, "keys", _SMALLEST_ENTRY, 16)):
        n_bytes = count * smallest
        if n_bytes > left:
            cursor.fault(f"{count} {what} take at least {n_bytes} bytes, but {left} follow: the file is cut short or damaged", offset)
        if count > MAX_ENTRIES:
            cursor.fault(f"{count} {what}; at most {MAX_ENTRIES} are allowed", offset)
    return version, n_tensors, n_keys


def _read_entries(cursor: Cursor, count: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for index in range(count):
        cursor.kind, cursor.name = f"key {index} of {count}", ""
        start = cursor.at
        key = cursor.text("its name", MAX_KEY_BYTES)
        if not key:
            cursor.fault("its name is empty", start)
        cursor.kind, cursor.name = "key", key
        if key in entries:
            cursor.fault("stands in the file twice", start)
        kind = read_value_type(cursor, "its value type")
        start = cursor.at
        value, element = read_value(cursor, kind)
        entries[key] = Entry(kind, element, value, start, cursor.at)
    return entries


def _alignment(metadata: Metadata) -> int:
    if ALIGNMENT_KEY not in metadata:
        return DEFAULT_ALIGNMENT
    alignment = metadata[ALIGNMENT_KEY]
    if metadata.value_type(ALIGNMENT_KEY) is not ValueType.UINT32 or alignment < 1 or alignment & (alignment - 1):
        metadata.refuse(ALIGNMENT_KEY, "a power of two as uint32")
    return alignment
