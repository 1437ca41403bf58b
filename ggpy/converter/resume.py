"""Continuing an interrupted conversion: the same source, options and version, and tensors whose bytes are still what was written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ggpy import __version__
from ggpy.converter.files import RangeFile
from ggpy.converter.journal import Identity, Journal, Unfinished, Wider, read_journal
from ggpy.converter.keep import type_name
from ggpy.converter.options import Options
from ggpy.converter.report import size_in_words
from ggpy.converter.stream import NeedsWider, Written
from ggpy.errors import CheckpointError, GGPyError, printable
from ggpy.gguf import GGUFWriter
from ggpy.gguf.partial import Abandoned

_NOT_OF_THE_BYTES = {"force", "threads", "strict", "resume", "on_progress", "on_warning"}
_SPLIT = re.compile(r"(.*)-\d{5}-of-(\d{5}\.gguf)")


class Resumption:
    """What of an interrupted conversion may be used, and what is to be noted of this one. Every attempt of a conversion, until all tensors
    have a format that holds them, begins with `find` and then, when all is declared, `begin`.

    say: takes lines for the user. wider: what this conversion found too narrow. n_resumed, n_kept: tensors taken over; tensors that another
    start can take over, 0 where the unfinished file is to be removed.
    """

    def __init__(self, source: Path, target: Path, options: Options, say: Callable[[str], None]):
        self._source, self._target, self._options, self._say = source, target, options, say
        self.wider: dict[str, tuple[str, str]] = {}
        self.n_resumed = self.n_kept = 0
        self._writer: GGUFWriter | None = None
        self._journal: Journal | None = None
        self._unfinished: Unfinished | None = None

    @cached_property
    def _identity(self) -> Identity:
        return identify(self._source, self._options)

    def find(self, writer: GGUFWriter) -> Wider:
        """Look for an unfinished file; returns `wider` of the one that is to be continued.

        Raises GGPyError where there are only such of another source, other options or another version.
        """
        self.n_kept = 0
        self._unfinished = find_unfinished(self._target, writer.abandoned, self._identity)
        found = self._unfinished.wider if self._unfinished else {}
        self.wider |= found
        return found

    @contextlib.contextmanager
    def begin(self, writer: GGUFWriter) -> Iterator[dict[str, Written]]:
        """Begin the journal; gives what is written already, by tensor name."""
        done = take_over(writer, self._target, self._unfinished) if self._unfinished else {}
        writer.drop_abandoned()
        if writer.removed_bytes:
            self._say(
                f"{size_in_words(writer.removed_bytes)} freed, which a conversion to {printable(self._target)} left when it was killed"
            )
        self.n_resumed = len(done)
        self._writer, self._journal = writer, Journal(writer, self._identity, self.wider, done)
        self._keep()
        try:
            yield done
        except NeedsWider:
            self.n_kept = 0
            writer.keep(False)  # its header will be another
            raise
        finally:
            self._journal.close()

    def note(self, name: str, written: Written) -> None:
        """A tensor is written."""
        assert self._journal is not None
        self._journal.note(name, written)
        self._keep()

    def tell(self, n_tensors: int) -> None:
        """Say, as the conversion ends early, what is kept."""
        if self.n_kept:
            self._say(f"{self.n_kept} of {n_tensors} tensors are done and kept: the same command with --resume goes on from there")

    def _keep(self) -> None:
        assert self._writer is not None and self._journal is not None
        self.n_kept = self._journal.n_done if self._options.resume else 0
        self._writer.keep(self.n_kept > 0)


def identify(source: Path, options: Options) -> Identity:
    """The identity of converting `source`: every option counts that is not known to change no byte."""
    chosen = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name not in _NOT_OF_THE_BYTES}
    options_as_json = {name: _as_json(value) for name, value in chosen.items()}
    return Identity(__version__, fingerprint(source), options_as_json | {"type": type_name(options.type), "verify": options.level})


def fingerprint(path: Path) -> dict[str, Any]:
    """The files of a model, or a file of data, by name: inode, size, time of the last change of content and of the entry, in ns.

    They tell a file that was replaced or written to from one that was not, without reading it.
    """
    files: Iterable[Path] = [path]
    if path.is_dir():
        files = (file for file in path.iterdir() if file.suffix != ".gguf" and not file.name.startswith("."))
    elif split := _SPLIT.fullmatch(path.name):
        files = (file for file in path.parent.iterdir() if (m := _SPLIT.fullmatch(file.name)) and m.groups() == split.groups())
    found = {}
    for file in sorted(files):
        if file.is_file():
            status = file.stat()
            found[file.name] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return found


def find_unfinished(target: Path, abandoned: Iterable[Abandoned], identity: Identity) -> Unfinished | None:
    """Of the unfinished files of a target the one that may be continued and is furthest; None where none has got anywhere.

    Raises GGPyError where there are only such of another source, other options or another version.
    """
    known = [unfinished for file in abandoned if (unfinished := read_journal(file)) is not None and unfinished.written]
    fitting = [unfinished for unfinished in known if unfinished.identity == identity]
    if known and not fitting:
        raise _differs(target, _difference(known[0].identity, identity))
    return max(fitting, key=lambda unfinished: len(unfinished.written), default=None)


def take_over(writer: GGUFWriter, target: Path, unfinished: Unfinished) -> dict[str, Written]:
    """Continue an unfinished file in a writer to which all is declared; by tensor name what is written already, each compared with its
    checksums. Raises GGPyError where its header would be another."""
    if writer.header_digest() != unfinished.header:
        raise _differs(target, "its metadata or the types of its tensors were others")
    writer.adopt(unfinished.file)
    file, done = RangeFile(writer.partial), {}
    try:
        for name in writer.tensor_names:
            written = unfinished.written.get(name)
            if written is not None and _holds(file, *writer.data_range(name), written):
                writer.skip_tensor(name)
                done[name] = written
    finally:
        file.close()
    return done


def _holds(file: RangeFile, offset: int, n_bytes: int, written: Written) -> bool:
    """Whether the bytes of a tensor are those that were written."""
    if any(piece.n_bytes <= 0 for piece in written.pieces) or sum(piece.n_bytes for piece in written.pieces) != n_bytes:
        return False
    for piece in written.pieces:
        try:
            if zlib.crc32(file.read(offset, piece.n_bytes).data) != piece.checksum:
                return False
        except CheckpointError:  # it ends before
            return False
        offset += piece.n_bytes
    return True


def _as_json(value: Any) -> Any:
    """An option as JSON gives it back; a path with what lies there."""
    if isinstance(value, str | os.PathLike):
        with contextlib.suppress(OSError, ValueError):
            if Path(value).exists():
                return [os.fspath(value), fingerprint(Path(value))]
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), zlib.crc32(np.ascontiguousarray(value).data)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value if isinstance(value, int | float | None) else str(value)


def _difference(then: Identity, now: Identity) -> str:
    if then.version != now.version:
        return f"it was begun by ggpy {printable(then.version, 40)}, this is {now.version}"
    for name in sorted(then.source.keys() | now.source.keys()):
        if then.source.get(name) != now.source.get(name):
            return f"{printable(name, 80)} of the source has changed since"
    for name in sorted(then.options.keys() | now.options.keys()):
        before, after = then.options.get(name), now.options.get(name)
        if before != after:
            same = _shown(before) == _shown(after)
            return f"{name} was {_shown(before)}" + (", which has changed since" if same else f", not {_shown(after)}")
    return "it was begun otherwise"


def _shown(value: Any) -> str:
    """An option as the user wrote it."""
    return printable(value[0] if isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict) else value, 80)


def _differs(target: Path, what: str) -> GGPyError:
    return GGPyError(
        f"{printable(target)}: its unfinished file cannot be continued: {what}; without --resume (resume=False) it begins anew"
    )
