"""The journal of an unfinished file: what its conversion was begun with, and which tensors are in it.

A JSON object a line, appended as tensors are written: first what decides the bytes, then one line a tensor with the CRC-32 of its pieces.
Neither is flushed to the disk on the way: what counts is what the file still holds when it is continued.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ggpy.blocks import BLOCKS
from ggpy.converter.files import RangeFile
from ggpy.converter.stream import Written, WrittenPiece
from ggpy.errors import CheckpointError
from ggpy.gguf import GGUFWriter
from ggpy.gguf.partial import Abandoned, journal_of

MAX_JOURNAL_BYTES = 256 << 20

Wider = Mapping[str, tuple[str, str]]
"""By tensor: the format it got because the planned one cannot hold its values, and why."""


@dataclass(frozen=True)
class Identity:
    """What decides the bytes of a conversion. source: by file name its inode, size and times. options: by name, as JSON values."""

    version: str
    source: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Unfinished:
    """An unfinished file and its journal. header: digest of what comes before the data. written: the tensors that are done, by name."""

    file: Abandoned
    identity: Identity
    header: str
    wider: Wider
    written: dict[str, Written] = field(default_factory=dict)


class Journal:
    """The journal of the file that `writer` writes. A disk that does not take it is no error: then there is nothing to continue.

    n_done: tensors that are in it.
    """

    def __init__(self, writer: GGUFWriter, identity: Identity, wider: Wider, done: Mapping[str, Written]):
        self._path = journal_of(writer.partial)
        self.n_done = 0
        self._file = None
        with contextlib.suppress(OSError):
            self._file = open(self._path, "w", encoding="ascii")  # noqa: SIM115
        self._append({**asdict(identity), "header": writer.header_digest(), "wider": dict(wider)})
        for name, written in done.items():
            self.note(name, written)

    def note(self, name: str, written: Written) -> None:
        """A tensor is written."""
        pieces = [[piece.n_bytes, piece.checksum] for piece in written.pieces]
        measured = {"relative_rmse": written.relative_rmse, "fault": written.fault, "worst_error": written.worst_error}
        self._append({"tensor": name, **measured, "pieces": pieces})
        self.n_done += self._file is not None

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError:
            self.close()
            self.n_done = 0
            with contextlib.suppress(OSError):
                self._path.unlink()


def read_journal(file: Abandoned) -> Unfinished | None:
    """The journal of an unfinished file, up to the first line that is not whole; None where there is none that can be used."""
    try:
        journal = RangeFile(file.journal)
        try:
            lines = journal.read(0, min(journal.size, MAX_JOURNAL_BYTES)).tobytes().split(b"\n")
        finally:
            journal.close()
        first = json.loads(lines[0])
        identity = Identity(first["version"], first["source"], first["options"])
        wider = {name: (BLOCKS[format].name, str(why)) for name, (format, why) in first["wider"].items()}
        unfinished = Unfinished(file, identity, first["header"], wider)
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        for line in lines[1:-1]:  # what follows the last newline is empty, or was cut short
            note = json.loads(line)
            pieces = tuple(WrittenPiece(int(n_bytes), int(checksum)) for n_bytes, checksum in note["pieces"])
            unfinished.written[note["tensor"]] = Written(pieces, note["relative_rmse"], note["fault"], note["worst_error"])
    return unfinished
