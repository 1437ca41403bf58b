"""Files under way: how they are called, who is writing one, and what interrupted writers left behind.

A new file is written as `.NAME.XXXXXXXX.partial` beside its target, and locked as long as its writer lives, however that ends. One that
another can lock has been abandoned: it is removed at the next start, or continued. A `.journal` of the same name may lie beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LONGEST_NAME = 200  # bytes of the target's name that are taken over: with what is added, file systems allow 255
_READ_WRITE = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class Abandoned:
    """What a writer left that was killed, or told to keep it. It is locked by this process, and open, until `close` or `remove`."""

    path: Path
    descriptor: int

    @property
    def journal(self) -> Path:
        return journal_of(self.path)

    @property
    def allocated_bytes(self) -> int:
        """What it takes on the disk; holes do not count."""
        return allocated_bytes(self.descriptor)

    def close(self) -> None:
        """Leave it where it is, to be found again."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def remove(self) -> None:
        """Away with it, while it is locked where the system can: or another could begin to continue it."""
        for path in (self.path, self.journal):
            with contextlib.suppress(OSError):
                path.unlink()
        self.close()
        with contextlib.suppress(OSError):  # Windows removes no open file
            self.path.unlink()


def new_partial(target: Path) -> Path:
    """A name for a file that is to become `target`."""
    return target.parent / f".{_taken_over(target)}.{secrets.token_hex(4)}.partial"


def journal_of(partial: Path) -> Path:
    """Where notes on a file under way may lie."""
    return partial.with_suffix(".journal")


def find_abandoned(target: Path) -> list[Abandoned]:
    """What was left of files that were to become `target`, by name; journals without their file are removed on the way."""
    found = [abandoned for path in _beside(target, "partial") if (abandoned := _take(path))]
    for journal in _beside(target, "journal"):
        if not journal.with_suffix(".partial").exists():
            with contextlib.suppress(OSError):
                journal.unlink()
    return found


def claim(descriptor: int) -> bool:
    """Lock an open file under way until its descriptor is closed; False where another process has it, or removed it meanwhile.

    Where files cannot be locked, nothing is abandoned: OSError. Windows needs no lock, since it does not remove files that are open.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return os.fstat(descriptor).st_nlink > 0


def allocated_bytes(descriptor: int) -> int:
    """Bytes that an open file takes on the disk, holes left out; 0 where the system does not say."""
    try:
        return 512 * getattr(os.fstat(descriptor), "st_blocks", 0)
    except OSError:
        return 0


def _taken_over(target: Path) -> str:
    return target.name if len(os.fsencode(target.name)) <= _LONGEST_NAME else "ggpy"


def _beside(target: Path, suffix: str) -> Iterator[Path]:
    pattern = re.compile(rf"\.{re.escape(_taken_over(target))}\.[0-9a-f]{{8}}\.{suffix}")
    with contextlib.suppress(OSError, ValueError), os.scandir(target.parent) as entries:
        yield from sorted(target.parent / entry.name for entry in entries if pattern.fullmatch(entry.name))


def _take(path: Path) -> Abandoned | None:
    """The file, locked, if nobody else has it."""
    try:
        descriptor = os.open(path, _READ_WRITE)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and claim(descriptor):
            if status.st_nlink == 1:
                return Abandoned(path, descriptor)
            path.unlink()  # finished, and killed when the target had its name already: it must not be written to
    os.close(descriptor)
    return None
