"""What evaluations leave on disk: scores of windows, so that a run that was ended goes on, and a base's log-probabilities for the next run.

An entry is keyed by the digests of the model and of the window's tokens and by everything else that decides its bytes, written whole or
not at all, and checked when it is read (see ggpy.cache); nothing in it is code. The folder is bounded: what was not used for longest goes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ggpy.cache import cache_directory, read_entry, write_entry
from ggpy.gguf import GGUFFile

SCHEME = 1  # counts changes of what entries hold
LIMIT = 8 << 30  # bytes in the user's cache directory
SPARE = 2 << 30  # bytes left free on the disk
_READ_BYTES = 1 << 20
_PACKAGE = Path(__file__).resolve().parents[1]
_DECIDING = ("arch", "blocks", "kernels", "runtime", "simd")


class Store:
    """Entries in a folder: by default one in the user's cache directory, held below `limit` bytes; None for no limit."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int | None = LIMIT):
        self.folder = cache_directory() / "evaluations" if folder is None else Path(folder)
        self.limit = limit

    def read(self, *key: object) -> bytes | None:
        """The bytes kept under a key, or None."""
        path, key_text = self._place(key)
        found = read_entry(path, key_text)
        if found is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found[1]

    def write(self, content: bytes, *key: object) -> None:
        """Keep bytes under a key, if there is room for them; a disk that cannot be written costs only the next run its time."""
        if self.has_room_for(len(content)):
            write_entry(*self._place(key), content)
            self._drop_oldest()

    def has_room_for(self, n_bytes: int) -> bool:
        """Whether so many more bytes may be kept: they are below the limit, and the disk does not become full."""
        folder = next((place for place in (self.folder, *self.folder.parents) if place.is_dir()), None)
        if folder is None or (self.limit is not None and n_bytes > self.limit):
            return False
        return shutil.disk_usage(folder).free > n_bytes + SPARE

    def _place(self, key: Sequence[object]) -> tuple[Path, str]:
        text = json.dumps(key)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:40], hashlib.sha256(text.encode()).hexdigest()

    def _drop_oldest(self) -> None:
        if self.limit is None:
            return
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            found = [(entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries]
            total = sum(size for _, size, _ in found)
            for _, size, path in sorted(found):
                if total <= self.limit:
                    return
                Path(path).unlink()
                total -= size


def identity(file: GGUFFile, config: object) -> str:
    """Names what decides a model's predictions: its bytes, its hyper-parameters for the context, and the code and instructions at work."""
    from ggpy.simd.target import target

    parts = [*(file_digest(path) for path in file.paths), repr(config), _code_digest(), target().name, target().features]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; read once for as long as its size and time of change stay."""
    status = path.stat()
    return _digest_of(str(path.resolve()), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_of(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@functools.cache
def _code_digest() -> str:
    """Digest of the modules that decide what a model predicts."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in _DECIDING for path in (_PACKAGE / folder).rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
