"""Reading a new file back: its table and every tensor's bytes must be what was meant to be written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ggpy.converter.files import RangeFile
from ggpy.converter.recipes import PlannedTensor
from ggpy.converter.stream import Written
from ggpy.errors import GGPyError, GGUFError, printable
from ggpy.gguf import open_gguf

_PIECE_BYTES = 1 << 24


def verify_file(
    path: Path, target: Path, planned: Mapping[str, PlannedTensor], written: Mapping[str, Written], on_bytes: Callable[[str, int], None]
) -> None:
    """Compare the file at `path`, which is to become `target`, with what was planned and written; raises GGPyError where it differs.

    The data is read from the file, not through the map of it, so memory stays small. `on_bytes(name, n)` is called as n more bytes of a
    tensor were compared.
    """
    try:
        gguf = open_gguf(path)
    except GGUFError as error:
        raise GGPyError(f"{printable(target)}: not written as meant: {error.what}") from None
    with gguf:
        found = [(t.name, t.shape, t.format.name) for t in gguf.tensors.values()]
        meant = [(p.name, p.shape, p.format) for p in planned.values()]
        if found != meant:
            raise GGPyError(f"{printable(target)}: not written as meant: its tensor table differs from the plan")
        file = RangeFile(path)
        try:
            for tensor in gguf.tensors.values():
                digest = hashlib.blake2b(digest_size=16)
                for at in range(0, tensor.n_bytes, _PIECE_BYTES):
                    piece = file.read(tensor.offset + at, min(_PIECE_BYTES, tensor.n_bytes - at))
                    digest.update(piece.data)
                    on_bytes(tensor.name, len(piece))
                if digest.digest() != written[tensor.name].digest:
                    raise GGPyError(f"{printable(target)}: tensor {printable(tensor.name)} reads back different from what was written")
        finally:
            file.close()
