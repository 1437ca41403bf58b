"""A file that appears whole or not at all: written under a temporary name in the same directory, flushed, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType

from ggpy.errors import GGPyError, printable
from ggpy.gguf.partial import Abandoned, allocated_bytes, claim, find_abandoned, journal_of, new_partial

_WRITE_BYTES = 1 << 30  # Linux writes at most 2 GiB - 4 KiB in one call, macOS less than 2 GiB
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_NAMES_TRIED = 3


class AtomicFile:
    """A new file at `path`, for use in a `with` statement.

    Leaving the block without an exception makes it durable and gives it its name; any exception, KeyboardInterrupt included, removes
    it and leaves `path` as it was. Without `force` an existing `path` is refused, at the start and again at the end. Faults of the
    disk are GGPyError with the bytes needed and free.

    What writers of `path` left behind that were killed is removed at the start, or offered in `abandoned` with `resume`.
    removed_bytes: how much of the disk that freed. kept: whether to leave the unfinished file, to be continued, should the block end with
    an exception; may be set at any time.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False, resume: bool = False):
        self.path, self.force, self.resume = Path(path), force, resume
        self.n_bytes = self.removed_bytes = 0
        self.abandoned: list[Abandoned] = []
        self.kept = False
        self._temporary: Path | None = None
        self._descriptor: int | None = None

    def __enter__(self) -> AtomicFile:
        self._refuse_target()
        self.abandoned = find_abandoned(self.path)
        if not self.resume:
            self.drop_abandoned()
        try:
            self._create()
        except OSError as error:
            self._discard()
            raise self._failed(error) from None
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._commit()
        except OSError as fault:
            raise self._failed(fault) from None
        finally:
            self._discard()

    def adopt(self, abandoned: Abandoned) -> None:
        """Continue that one of the `abandoned` files, and remove the others."""
        self._discard_partial()
        self.abandoned.remove(abandoned)
        self._temporary, self._descriptor = abandoned.path, abandoned.descriptor
        self.drop_abandoned()

    def drop_abandoned(self) -> None:
        """Remove what is not to be continued."""
        for abandoned in self.abandoned:
            self.removed_bytes += abandoned.allocated_bytes
            abandoned.remove()
        self.abandoned = []

    @property
    def partial(self) -> Path:
        """Where the file is until it gets its name; ValueError outside the `with` block."""
        if self._temporary is None:
            raise ValueError("the file is not open: use it inside a `with` block")
        return self._temporary

    def resize(self, n_bytes: int) -> None:
        """Give the file its final size, all zeros so far; GGPyError at once where the disk has not that much room."""
        free, missing = self._free_bytes(), n_bytes - allocated_bytes(self._open_descriptor())
        if free is not None and missing > free:
            raise GGPyError(f"{printable(self.path)}: {missing} bytes are needed, but the disk has {free} free")
        self.n_bytes = n_bytes
        try:
            os.ftruncate(self._open_descriptor(), n_bytes)
        except OSError as error:
            raise self._failed(error) from None

    def write_at(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`."""
        descriptor, rest = self._open_descriptor(), memoryview(data)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            while rest:
                rest = rest[os.write(descriptor, rest[:_WRITE_BYTES]) :]
        except OSError as error:
            raise self._failed(error) from None

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("the file is not open: use it inside a `with` block")
        return self._descriptor

    def _create(self) -> None:
        for attempt in range(_NAMES_TRIED):
            self._temporary = new_partial(self.path)
            try:
                self._descriptor = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            except FileExistsError:
                self._temporary = None  # another's, by an unlikely chance
                if attempt + 1 == _NAMES_TRIED:
                    raise
                continue
            with contextlib.suppress(OSError):  # where files cannot be locked, none is taken for abandoned
                if not claim(self._descriptor):  # taken for abandoned by another that starts, before it was locked
                    self._discard_partial()
                    continue
            return
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _refuse_target(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise GGPyError(f"{printable(self.path)}: {getattr(error, 'strerror', None) or error}") from None
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise GGPyError(f"{printable(self.path)}: exists and is not a regular file; name another output")
        if not self.force:
            raise GGPyError(f"{printable(self.path)}: exists already; name another output, or replace it with --force (force=True)")

    def _commit(self) -> None:
        descriptor, temporary = self._open_descriptor(), self._temporary
        assert temporary is not None
        try:
            os.fsync(descriptor)
        except OSError:
            self.kept = False  # what reached the disk cannot be told any more: the system may hold pages for written that are not
            raise
        if os.name == "nt":  # it renames no open file; elsewhere the file stays locked until it has its name
            self._close()
        self._publish(temporary)
        self._temporary = None
        with contextlib.suppress(OSError):
            journal_of(temporary).unlink()
        self._close()
        sync_directory(self.path.parent)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _publish(self, temporary: Path) -> None:
        if self.force:
            self._refuse_target()
            temporary.replace(self.path)
            return
        try:
            os.link(temporary, self.path)  # unlike a rename, it never replaces what another process put there meanwhile
        except FileExistsError:
            raise GGPyError(f"{printable(self.path)}: appeared while it was being written; nothing was replaced") from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._refuse_target()
            temporary.replace(self.path)
        else:
            temporary.unlink()

    def _discard(self) -> None:
        """Close everything, and remove the unfinished file unless it is kept."""
        if self.kept:
            self._temporary = None
        self._discard_partial()
        for abandoned in self.abandoned:
            abandoned.close()
        self.abandoned = []

    def _discard_partial(self) -> None:
        temporary, self._temporary = self._temporary, None
        if temporary is not None and os.name != "nt":
            _remove(temporary)  # while it is locked
        with contextlib.suppress(OSError):
            self._close()
        if temporary is not None and os.name == "nt":
            _remove(temporary)

    def _failed(self, error: OSError) -> GGPyError:
        message = f"{printable(self.path)}: cannot be written: {error.strerror or error}"
        free = self._free_bytes()
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and free is not None:
            message += f" ({self.n_bytes} bytes are needed, the disk has {free} free)"
        return GGPyError(message)

    def _free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self.path.parent).free
        except OSError:
            return None


def _remove(partial: Path) -> None:
    for path in (journal_of(partial), partial):
        with contextlib.suppress(OSError):
            path.unlink()


def sync_directory(directory: Path) -> None:
    """Have the names in `directory` on the disk, where the file system can be asked for that."""
    if os.name == "nt":  # a directory cannot be opened there
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
