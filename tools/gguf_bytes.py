"""GGUF bytes put together by hand, unchecked, so that illegal files can be made as easily as legal ones. Knows nothing of ggpy."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A string; `length` lies about its bytes."""
    raw = text if isinstance(text, bytes) else text.encode()
    return u64(len(raw) if length is None else length) + raw


def array(kind: int, count: int, body: bytes = b"") -> bytes:
    return u32(kind) + u64(count) + body


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return string(key) + u32(kind) + value


def tensor(name: str | bytes, dimensions: Sequence[int], ggml_type: int, offset: int, rank: int | None = None) -> bytes:
    """An entry of the tensor table; `dimensions` from the innermost, `rank` lies about their number."""
    shape = u32(len(dimensions) if rank is None else rank) + b"".join(map(u64, dimensions))
    return string(name) + shape + u32(ggml_type) + u64(offset)


def gguf(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file; `n_tensors` and `n_keys` lie about the numbers of entries, `alignment` is where `data` is put, not what the file says."""
    counts = u64(len(tensors) if n_tensors is None else n_tensors) + u64(len(entries) if n_keys is None else n_keys)
    head = b"GGUF" + u32(version) + counts + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment if tensors else 0) + data
