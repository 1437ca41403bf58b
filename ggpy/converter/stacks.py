"""Matrices that a checkpoint stores one by one and GGUF in one tensor, as experts are: rows are read from whichever they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ggpy.converter.source import RowReader, SourceTensor
from ggpy.errors import CheckpointError, printable


def stacked(name: str, origin: str, parts: Sequence[SourceTensor]) -> SourceTensor:
    """Matrices of one shape as one tensor, (len(parts), rows, columns). Raises CheckpointError where they are stored in different ways."""
    first = parts[0]
    for part in parts:
        if (part.dtype, part.quantized) != (first.dtype, first.quantized):
            raise CheckpointError(
                f"tensor {printable(part.origin)} is {part.dtype}, expected {first.dtype}, as {printable(first.origin)} is: they become one"
            )
    repacked = {format: (lambda format=format: _reader([part.repacked[format] for part in parts], first.rows)) for format in first.repacked}
    shape = (len(parts), *first.shape)
    return SourceTensor(
        name,
        origin,
        shape,
        first.dtype,
        first.kept,
        lambda: _reader([part.open for part in parts], first.rows),
        None,
        first.quantized,
        repacked,
    )


def _reader(opens: Sequence[Callable[[], RowReader]], rows: int) -> RowReader:
    """Rows of all, `rows` of each."""
    readers = [open() for open in opens]

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        while start < stop:
            number, first = divmod(start, rows)
            last = min(rows, first + stop - start)
            pieces.append(readers[number](first, last))
            start += last - first
        return np.concatenate(pieces) if pieces else readers[0](0, 0)

    return read
