"""A file's tensor data read once from end to end, a piece at a time: checksums, numbers that are none, tensors of nothing but zeros."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.blocks.block_format import split_fields
from ggpy.converter.checksums import joined_crc32
from ggpy.converter.finite import fault_in_blocks
from ggpy.converter.requantize import GGUFSource
from ggpy.converter.source import SourceTensor
from ggpy.converter.stream import Workers

_PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class Scanned:
    """What was found of a tensor. checksum: CRC-32 of its bytes. fault: in a few words, the first scale or weight that is not finite.
    zero: whether all its weights are 0."""

    name: str
    checksum: int
    fault: str | None
    zero: bool


def scan(source: GGUFSource, threads: int, on_bytes: Callable[[str, int], None] = lambda name, n: None) -> Iterator[Scanned]:
    """Read every tensor of an open file, in order; on_bytes(name, n) is called after n more bytes of it."""
    workers = Workers(threads)
    try:
        for tensor in source.tensors:
            row_bytes = BLOCKS[tensor.dtype].row_bytes(tensor.columns)
            step = max(1, _PIECE_BYTES // max(1, row_bytes))
            pieces, fault, zero = [], None, True
            for checked in workers.in_order(partial(_look, tensor, start, step) for start in range(0, tensor.rows, step)):
                n_bytes, checksum, piece_fault, piece_zero = checked
                pieces.append((n_bytes, checksum))
                fault, zero = fault or piece_fault, zero and piece_zero
                on_bytes(tensor.name, n_bytes)
            yield Scanned(tensor.name, joined_crc32(pieces), fault, zero and bool(pieces))
    finally:
        workers.close()


def _look(tensor: SourceTensor, start: int, step: int) -> tuple[int, int, str | None, bool]:
    assert tensor.raw is not None
    data, block_format = tensor.raw(start, min(start + step, tensor.rows)), BLOCKS[tensor.dtype]
    fault = fault_in_blocks(tensor, start, data, block_format)
    parts = split_fields(data.reshape(-1, block_format.block_bytes), block_format.fields)
    scales = [numbers for field, numbers in zip(block_format.fields, parts, strict=True) if field.dtype.kind == "f"]
    zero = not data.any() or (bool(scales) and not any(numbers.any() for numbers in scales))
    return data.nbytes, zlib.crc32(np.ascontiguousarray(data).data), fault, zero
