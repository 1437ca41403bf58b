"""The tensor table: names, shapes, formats and offsets, each checked against the file."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ggpy.blocks import BY_TYPE
from ggpy.gguf.cursor import Cursor
from ggpy.gguf.tensor import Tensor
from ggpy.gguf.types import MAX_DIMENSIONS, MAX_TENSOR_NAME_BYTES

MAX_VALUES = 2**60  # so that the byte size of a float64 array of any shape fits 64 bits, even where another dimension is 0

_REMOVED_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


def align(offset: int, alignment: int) -> int:
    """The next multiple of `alignment`, a power of two."""
    return (offset + alignment - 1) & -alignment


def read_tensors(cursor: Cursor, count: int, alignment: int, view: Callable[[int, int], np.ndarray]) -> tuple[int, dict[str, Tensor]]:
    """The offset of the data section and the tensors, in file order. Raises GGUFError for the first entry that breaks a rule."""
    entries: dict[str, tuple[tuple[int, ...], int, int, int]] = {}
    for index in range(count):
        cursor.kind, cursor.name = f"tensor {index} of {count}", ""
        start = cursor.at
        name = cursor.text("its name", MAX_TENSOR_NAME_BYTES)
        cursor.kind, cursor.name = "tensor", name
        if name in entries:
            cursor.fault("stands in the file twice", start)
        shape = _read_shape(cursor)
        type_at = cursor.at
        number = cursor.u32("its type")
        offset = cursor.u64("its offset")
        if offset & (alignment - 1):
            cursor.fault(f"its offset {offset} is not a multiple of the alignment, {alignment}", cursor.at - 8)
        entries[name] = shape, number, offset, type_at
    file_size = len(cursor.buffer)
    data_offset = align(cursor.at, alignment) if count else cursor.at
    tensors = {}
    for name, (shape, number, offset, type_at) in entries.items():
        cursor.kind, cursor.name = "tensor", name
        tensor = _place(cursor, name, shape, number, data_offset + offset, type_at, view)
        if tensor.offset + tensor.n_bytes > file_size:
            cursor.fault(
                f"its data, {tensor.n_bytes} bytes at {tensor.offset}, ends past the end of the file ({file_size} bytes): "
                "the file is cut short or damaged",
                type_at + 4,
            )
        tensors[name] = tensor
    _refuse_overlaps(cursor, list(tensors.values()))
    return data_offset, tensors


def _read_shape(cursor: Cursor) -> tuple[int, ...]:
    n_dimensions = cursor.u32("the number of its dimensions")
    if not 1 <= n_dimensions <= MAX_DIMENSIONS:
        cursor.fault(f"it has {n_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed", cursor.at - 4)
    dimensions = [cursor.u64("its dimensions") for _ in range(n_dimensions)]
    if math.prod(max(d, 1) for d in dimensions) > MAX_VALUES:
        cursor.fault(f"its dimensions {dimensions} make more than 2^60 values", cursor.at - 8 * n_dimensions)
    return tuple(reversed(dimensions))


def _place(
    cursor: Cursor, name: str, shape: tuple[int, ...], number: int, offset: int, type_at: int, view: Callable[[int, int], np.ndarray]
) -> Tensor:
    block_format = BY_TYPE.get(number)
    if block_format is None:
        removed = _REMOVED_TYPES.get(number)
        why = f"{removed}, which ggml removed: quantize the model again" if removed else f"known types end at {max(BY_TYPE)}"
        cursor.fault(f"its type is {number} ({why})", type_at)
    if shape[-1] % block_format.block_values:
        cursor.fault(
            f"its rows of {shape[-1]} values are no whole blocks of {block_format.name} ({block_format.block_values} values)", type_at
        )
    n_bytes = math.prod(shape) // block_format.block_values * block_format.block_bytes
    return Tensor(name, shape, block_format, offset, n_bytes, view)


def _refuse_overlaps(cursor: Cursor, tensors: list[Tensor]) -> None:
    previous: Tensor | None = None
    for tensor in sorted((t for t in tensors if t.n_bytes), key=lambda t: t.offset):
        if previous is not None and tensor.offset < previous.offset + previous.n_bytes:
            cursor.kind, cursor.name = "tensor", tensor.name
            cursor.fault(f"its data overlaps that of '{previous.name}', {previous.n_bytes} bytes at {previous.offset}", tensor.offset)
        previous = tensor
