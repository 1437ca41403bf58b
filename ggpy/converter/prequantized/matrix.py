"""What a method makes of the tensors that stand for one weight: a matrix that reads as floats and, if its grid fits, as blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ggpy.converter.prequantized.grid import Grid, Span
from ggpy.converter.source import Quantized, RowReader

GridReader = Callable[[int, int], Grid]
"""(start, stop) -> the grid of rows [start, stop); may be called from several threads."""


@dataclass(frozen=True)
class QuantizedMatrix:
    """A quantized weight of a checkpoint.

    name: of the weight, as a float checkpoint has it. shape: (rows, columns). path: the file it lies in. quantized: what was done to it.
    open(): a reader of its float32 rows. repacked: format -> a function that opens a reader of its rows as blocks.
    """

    name: str
    shape: tuple[int, int]
    path: Path
    quantized: Quantized
    open: Callable[[], RowReader]
    repacked: Mapping[str, Callable[[], RowReader]] = field(default_factory=dict)


def on_grid(name: str, shape: tuple[int, int], path: Path, method: str, span: Span, open: Callable[[], GridReader]) -> QuantizedMatrix:
    """A matrix whose rows are grids. Where no block of its size holds it, numbers of up to five bits get Q8_0, others F16."""
    fits = span.fits
    quantized = Quantized(method, tuple(fits), tuple(format for format, exact in fits.items() if exact), nearest(span.high - span.low))
    repacked = {format: partial(_open_blocks, open, format) for format in fits}
    return QuantizedMatrix(name, shape, path, quantized, partial(_open_values, open), repacked)


def nearest(levels: int) -> str:
    return "Q8_0" if levels < 32 else "F16"


def off_grid(name: str, shape: tuple[int, int], path: Path, method: str, open: Callable[[], RowReader]) -> QuantizedMatrix:
    """A matrix of a codebook that no block format has: Q8_0 comes close."""
    return QuantizedMatrix(name, shape, path, Quantized(method, (), (), "Q8_0"), open)


def _open_values(open: Callable[[], GridReader]) -> RowReader:
    grid = open()
    return lambda start, stop: grid(start, stop).values()


def _open_blocks(open: Callable[[], GridReader], format: str) -> RowReader:
    grid = open()

    def read(start: int, stop: int) -> np.ndarray:
        return grid(start, stop).blocks(format)

    return read
