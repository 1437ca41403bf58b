"""What ggpy keeps to make a later start faster: files in the user's cache directory, each checked before it is believed.

An entry is never trusted for its name: it says what it was made of (its key), carries a digest of its own bytes, and must be a regular file
that belongs to this user and that nobody else may write. Whatever is not so is made again.

Layout of an entry: one line of JSON {"key", "sha256", "bytes", …}, a newline, the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

_MAX_HEADER = 4096


def cache_directory() -> Path:
    """GGPY_CACHE_DIR, else ggpy's folder in the user's cache directory. Not created by asking."""
    chosen = os.environ.get("GGPY_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ggpy"


def read_entry(path: Path, key: str) -> tuple[dict[str, Any], bytes] | None:
    """The header and the bytes of a valid entry made of `key`; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not _is_private(os.fstat(descriptor)):
                return None
            header, content = json.loads(file.readline(_MAX_HEADER)), file.read()
        valid = header["key"] == key and header["bytes"] == len(content) and header["sha256"] == hashlib.sha256(content).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (header, content) if valid else None


def write_entry(path: Path, key: str, content: bytes, **more: str) -> None:
    """Keep an entry for later starts, `more` in its header; a cache that cannot be written only costs those starts their time."""
    import tempfile

    header = {"key": key, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **more}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with open(handle, "wb") as file:
                file.write(json.dumps(header).encode() + b"\n" + content)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError:
        return


def _is_private(status: os.stat_result) -> bool:
    """A regular file of this user that nobody else may write."""
    if not stat.S_ISREG(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
