"""Reading the files of a checkpoint, which are untrusted: regular files only, byte ranges by position, JSON bounded and strict."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ggpy.errors import CheckpointError, printable


class RangeFile:
    """A regular file whose byte ranges any thread may read; what is read does not stay mapped, so memory is what the caller holds.

    Raises CheckpointError for what is no regular file: never blocks on a FIFO or a device.
    """

    def __init__(self, path: Path):
        self.path = path
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, flags)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise CheckpointError(f"{path}: not a regular file")
        self.size = status.st_size
        self.identity = (status.st_dev, status.st_ino)
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> np.ndarray:
        """`count` bytes from `offset`: uint8 (count,). Raises CheckpointError when the file ends before."""
        data = np.empty(count, np.uint8)
        view, at = data.data, 0
        while at < count:
            try:
                got = self._read_into(view[at : at + 2**30], offset + at)
            except OSError as error:
                raise CheckpointError(f"{self.path}: {error.strerror} at byte {offset + at}") from None
            if not got:
                raise CheckpointError(f"{self.path}: ends at byte {offset + at}, {count - at} bytes early: cut short while being read?")
            at += got
        return data

    def _read_into(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [view], offset)
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            data = os.read(self._descriptor, len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        os.close(self._descriptor)


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object in `path`; raises CheckpointError for a file that is larger, no legal JSON, or no object (see `parse_json`)."""
    file = RangeFile(path)
    try:
        if file.size > max_bytes:
            raise CheckpointError(f"{path}: {file.size} bytes, more than the {max_bytes} that are allowed for it")
        raw = file.read(0, file.size).tobytes()
    finally:
        file.close()
    return parse_json(raw, str(path))


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no key twice, no NaN or Infinity, bounded depth. Raises CheckpointError naming `where`."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise CheckpointError(f"{where}: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise CheckpointError(f"{where}: not legal JSON: {printable(error)}{_what_instead(raw)}") from None
    if type(value) is not dict:
        raise CheckpointError(f"{where}: holds {type(value).__name__}, expected a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {printable(repr(twice), 80)} twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _what_instead(head: bytes) -> str:
    """A hint for the downloads that are often taken for something else."""
    if head.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer: the file itself was not downloaded; run `git lfs pull`)"
    if head[:256].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return " (an HTML page: the download went wrong)"
    return ""
