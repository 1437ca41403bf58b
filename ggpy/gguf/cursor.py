"""Reading forward through untrusted bytes: every length is compared with what is left before anything is made of it."""

from __future__ import annotations

import mmap
import os
import struct
from typing import NoReturn

from ggpy.errors import GGUFError, printable
from ggpy.gguf.types import MAX_METADATA_BYTES, SCALARS, ValueType

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
_SCALAR_STRUCTS = {kind: struct.Struct("<" + scalar.code) for kind, scalar in SCALARS.items()}


class Cursor:
    """A position `at` in `buffer` that moves forward and never past `end`.

    `kind` and `name` say whose bytes are being read ("key", "general.name"); each fault is a GGUFError that names them, the value and the
    offset. All arithmetic is on Python integers.
    """

    def __init__(self, path: str | os.PathLike[str], buffer: mmap.mmap | bytes):
        self.path, self.buffer = path, buffer
        self.at, self.end = 0, min(len(buffer), MAX_METADATA_BYTES)
        self.kind, self.name = "header", ""
        self.n_elements = 0  # strings and arrays in arrays, so far

    @property
    def left(self) -> int:
        return self.end - self.at

    def fault(self, what: str, offset: int | None = None) -> NoReturn:
        """Raise GGUFError for what is being read, at `offset` (default: here)."""
        subject = f"{self.kind} '{printable(self.name, 80)}'" if self.name else self.kind
        raise GGUFError(self.path, self.at if offset is None else offset, f"{subject}: {what}")

    def short(self, what: str, n_bytes: int) -> NoReturn:
        """Raise the GGUFError of a file that ends inside `what`, which takes `n_bytes`."""
        if self.end < len(self.buffer):
            self.fault(f"{what} takes {n_bytes} bytes; all metadata together may take {MAX_METADATA_BYTES}")
        self.fault(f"{what} takes {n_bytes} bytes, but the file has {self.left} left: it is cut short or damaged")

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes` bytes."""
        at = self.at
        if n_bytes > self.end - at:
            self.short(what, n_bytes)
        self.at = at + n_bytes
        return self.buffer[at : self.at]

    def u32(self, what: str) -> int:
        at = self.at
        if self.end - at < 4:
            self.short(what, 4)
        self.at = at + 4
        return U32.unpack_from(self.buffer, at)[0]

    def u64(self, what: str) -> int:
        at = self.at
        if self.end - at < 8:
            self.short(what, 8)
        self.at = at + 8
        return U64.unpack_from(self.buffer, at)[0]

    def scalar(self, kind: ValueType) -> int | float:
        """A number as it lies there; a bool is its byte."""
        return _SCALAR_STRUCTS[kind].unpack(self.take(SCALARS[kind].n_bytes, "its value"))[0]

    def text(self, what: str, limit: int | None = None) -> str:
        """A string: its length in bytes (at most `limit`), then UTF-8."""
        start = self.at
        n_bytes = self.u64(f"the length of {what}")
        if limit is not None and n_bytes > limit:
            self.fault(f"{what} is {n_bytes} bytes long; at most {limit} are allowed", start)
        raw = self.take(n_bytes, what)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            self.fault(f"{what} is not UTF-8: byte 0x{raw[error.start]:02x}", start + 8 + error.start)
