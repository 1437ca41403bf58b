"""NaN and infinity among weights, which no conversion lets pass unsaid: where the first is, whether in floats or in scales of blocks."""

from __future__ import annotations

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.blocks.block_format import split_fields
from ggpy.converter.source import SourceTensor
from ggpy.runtime.encode import FLOATS

_EXPONENT = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}  # all ones: NaN or infinity


def fault_in_values(tensor: SourceTensor, start: int, values: np.ndarray) -> str | None:
    """Of float32 rows of a tensor from row `start` on: what and where the first is that is not finite, such as "is nan at index [95, 3]";
    None where all are finite."""
    finite = np.isfinite(values)
    if finite.all():
        return None
    row, column = divmod(int(np.argmin(finite)), values.shape[1])
    index = [int(i) for i in np.unravel_index((start + row) * tensor.columns + column, tensor.shape)]
    return f"is {values[row, column]} at index {index}"


def fault_in_blocks(tensor: SourceTensor, start: int, data: np.ndarray, block_format: BlockFormat) -> str | None:
    """The same of rows as they are stored, uint8 (rows, row_bytes): of blocks the scales and minima that are floats are looked at."""
    if block_format.name in FLOATS:
        exponent = _EXPONENT[block_format.name]
        bits = data.view(f"<u{block_format.block_bytes}")
        if not ((bits & exponent) == exponent).any():
            return None
        values = data.view(FLOATS[block_format.name])
        return fault_in_values(tensor, start, (bits.astype("<u4") << 16).view("<f4") if block_format.name == "BF16" else values)
    blocks = data.reshape(-1, block_format.block_bytes)
    for field, numbers in zip(block_format.fields, split_fields(blocks, block_format.fields), strict=True):
        if field.dtype.kind == "f" and not (finite := np.isfinite(numbers)).all():
            at = int(np.argmin(finite.all(axis=1)))
            row, block = divmod(at, len(blocks) // len(data))
            return f"has {field.name} = {numbers[at][~finite[at]][0]} in row {start + row}, block {block}"
    return None


def unchanged(values: np.ndarray, widened: np.ndarray, dtype: str, format: str) -> np.ndarray | None:
    """Rows of floats in that format bit by bit, uint8 (rows, row_bytes), NaN and infinity included; None where it cannot hold them all.

    values, widened: the rows of `dtype` and as float32.
    """
    exact = widened if format == "F32" else values if format == dtype else None
    return None if exact is None else np.ascontiguousarray(exact).view(np.uint8)
