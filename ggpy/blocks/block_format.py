"""What a block format is: an id, a number of values per block, fields in file order, and two functions between bytes and float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks.affine_grid import Grid
from ggpy.errors import GGPyError

Blocks = NDArray[np.uint8]  # (n_blocks, block_bytes)
Values = NDArray[np.float32]  # (n_blocks, block_values)
Rows = NDArray[np.float32]  # (n, cols), cols a whole number of blocks
Importance = NDArray[np.float32]  # (cols,), finite and not negative: mean squared activations, as an importance matrix keeps them

U8, I8 = np.dtype("u1"), np.dtype("i1")
U16, I16 = np.dtype("<u2"), np.dtype("<i2")
U32, I32, I64 = np.dtype("<u4"), np.dtype("<i4"), np.dtype("<i8")
F16, F32, F64 = np.dtype("<f2"), np.dtype("<f4"), np.dtype("<f8")

_CHUNK_VALUES = 1 << 18  # values decoded at a time: temporaries stay in cache and small beside the result


@dataclass(frozen=True)
class Field:
    """`count` little-endian numbers of `dtype`, one part of a block."""

    name: str
    dtype: np.dtype
    count: int

    @property
    def n_bytes(self) -> int:
        return self.dtype.itemsize * self.count


@dataclass(frozen=True)
class BlockFormat:
    """One way to store `block_values` neighbouring weights of a row in `block_bytes` bytes.

    decode: uint8 (n, block_bytes) -> float32 (n, block_values). Takes every byte pattern; NaN and Inf come out where the bytes say so.
        None where ggpy only knows the layout.
    encode: float32 (n, block_values) -> uint8 (n, block_bytes), the bytes ggml's reference code writes. NaN or Inf: ValueError
        naming index and value. None where ggpy cannot write the format.
    encode_weighted: float32 (n, cols) whole rows, importance float32 (cols,) -> uint8 (n, row_bytes), the bytes ggml's quantizer
        writes when it is given a row of an importance matrix. None where importance changes nothing: `encode` then writes the same.
    grid: the scales, offsets and levels that blocks are made of; None where values are not scale * level + offset.
    """

    name: str
    ggml_type: int
    block_values: int
    fields: tuple[Field, ...]
    decode: Callable[[Blocks], Values] | None = None
    encode: Callable[[Values], Blocks] | None = None
    encode_weighted: Callable[[Rows, Importance], NDArray[np.uint8]] | None = None
    grid: Grid | None = None

    @property
    def block_bytes(self) -> int:
        return sum(field.n_bytes for field in self.fields)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_values

    def row_bytes(self, n_values: int) -> int:
        """Bytes of a row of `n_values` weights; ValueError when it is not a whole number of blocks."""
        blocks, rest = divmod(n_values, self.block_values)
        if rest or n_values < 0:
            raise ValueError(f"a row of {n_values} values is not a whole number of {self.name} blocks of {self.block_values}")
        return blocks * self.block_bytes


def split_fields(blocks: Blocks, fields: Iterable[Field]) -> tuple[Any, ...]:
    """Views of `blocks`, uint8 (n, block_bytes), one per field: (n, count) of its dtype."""
    views, start = [], 0
    for field in fields:
        views.append(blocks[:, start : start + field.n_bytes].view(field.dtype))
        start += field.n_bytes
    return tuple(views)


def join_fields(fields: Iterable[Field], *parts: np.ndarray) -> Blocks:
    """Blocks, uint8 (n, block_bytes), from one array (n, count) per field."""
    fields = tuple(fields)
    blocks = np.empty((len(parts[0]), sum(field.n_bytes for field in fields)), np.uint8)
    for view, part in zip(split_fields(blocks, fields), parts, strict=True):
        view[...] = part
    return blocks


def require_finite(values: np.ndarray, name: str, start: int = 0) -> None:
    """`not_finite` for the first NaN or Inf in `values`, whose flat index begins at `start`; nothing where all are finite."""
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise not_finite(name, float(values.flat[index]), start + index)


def not_finite(name: str, value: float, index: int) -> ValueError:
    """The error of every encoder that meets NaN or Inf; `name` is the format that cannot hold it."""
    return ValueError(f"{name} cannot encode {value} at index {index}: weights must be finite")


def dequantize(data: np.ndarray, block_format: BlockFormat) -> NDArray[np.float32]:
    """float32 (rows, cols) of `data`, uint8 (rows, row_bytes); any number of rows, none included.

    ValueError where row_bytes is not a whole number of blocks; GGPyError where ggpy has no decoder for the format.
    """
    decode = block_format.decode
    if decode is None:
        raise GGPyError(f"no decoder for {block_format.name} blocks (ggml type {block_format.ggml_type})")
    rows, row_bytes = data.shape
    row_blocks, rest = divmod(row_bytes, block_format.block_bytes)
    if rest:
        raise ValueError(
            f"a row of {row_bytes} bytes is not a whole number of {block_format.name} blocks of {block_format.block_bytes} bytes"
        )
    values = np.empty((rows, row_blocks * block_format.block_values), np.float32)
    flat = values.reshape(-1, block_format.block_values)
    blocks = np.ascontiguousarray(data).reshape(-1, block_format.block_bytes)
    step = math.ceil(_CHUNK_VALUES / block_format.block_values)
    for start in range(0, len(blocks), step):
        flat[start : start + step] = decode(blocks[start : start + step])
    return values
