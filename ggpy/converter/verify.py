"""Reading a new file back: its table and every tensor's bytes must be what was meant to be written."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from ggpy.converter.files import RangeFile
from ggpy.converter.stream import Workers, Written, WrittenPiece
from ggpy.converter.tensor_types import PlannedTensor
from ggpy.errors import GGPyError, GGUFError, printable
from ggpy.gguf import GGUFFile, open_gguf


def verify_file(
    path: Path,
    target: Path,
    planned: Mapping[str, PlannedTensor],
    written: Mapping[str, Written],
    threads: int,
    on_bytes: Callable[[str, int], None],
) -> None:
    """Compare the file at `path`, which is to become `target`, with what was planned and written; raises GGPyError where it differs.

    The data is read from the file, not through the map of it, by `threads` threads, so memory stays small. `on_bytes(name, n)` is called
    as n more bytes of a tensor were compared.
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
        file, workers = RangeFile(path), Workers(threads)
        try:
            for name, n_bytes, equal in workers.in_order(_comparisons(gguf, file, written)):
                if not equal:
                    raise GGPyError(f"{printable(target)}: tensor {printable(name)} reads back different from what was written")
                on_bytes(name, n_bytes)
        finally:
            workers.close()
            file.close()


def _comparisons(gguf: GGUFFile, file: RangeFile, written: Mapping[str, Written]) -> Iterator[Callable[[], tuple[str, int, bool]]]:
    for tensor in gguf.tensors.values():
        at = tensor.offset
        for piece in written[tensor.name].pieces:
            yield partial(_compare, file, tensor.name, at, piece)
            at += piece.n_bytes


def _compare(file: RangeFile, name: str, offset: int, piece: WrittenPiece) -> tuple[str, int, bool]:
    return name, piece.n_bytes, zlib.crc32(file.read(offset, piece.n_bytes).data) == piece.checksum
