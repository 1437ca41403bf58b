"""Eight-bit floats times scales: of a tensor, of a row, or of blocks of rows and columns (DeepSeek and Qwen: 128 × 128).

Beside weight, F8_E4M3 or F8_E5M2 (rows, columns), lies weight_scale_inv or weight_scale, by which it is multiplied: one number,
(rows, 1), or (⌈rows / r⌉, ⌈columns / c⌉). E4M3 (OCP 8-bit floating point, 2023): 1 sign, 4 exponent and 3 mantissa bits, bias 7, no
infinity, NaN where all seven are set. E5M2: the upper byte of a half-precision number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.prequantized.matrix import QuantizedMatrix, off_grid
from ggpy.converter.prequantized.parts import FLOAT_DTYPES, Parts, fault, numbers, read_bytes
from ggpy.converter.safetensors import StoredTensor
from ggpy.converter.source import RowReader

_SCALES = (".weight_scale_inv", ".weight_scale")


def read_fp8(parts: Parts, config: HFConfig) -> Iterator[QuantizedMatrix]:
    """The weights with a scale beside them. Raises CheckpointError."""
    size = config.get("weight_block_size", [])
    if type(size) is not list or len(size) not in (0, 2) or not all(type(n) is int and 0 < n < 2**31 for n in size):
        raise config.refuse("weight_block_size", "[rows, columns]")
    for suffix in _SCALES:
        for prefix in parts.prefixes(suffix):
            yield float_matrix(parts, prefix, suffix, tuple(size) or None)
    for name, tensor in parts.left.items():
        if name.endswith(".weight") and tensor.dtype in _VALUES:
            raise fault(tensor, f"is {tensor.dtype} without a {' or '.join(s.removeprefix('.') for s in _SCALES)} beside it")


def float_matrix(parts: Parts, prefix: str, suffix: str, size: tuple[int, int] | None) -> QuantizedMatrix:
    """The 8-bit floats of `prefix`.weight times the scales in `prefix` + `suffix`. size: (rows, columns) that share a scale, if known."""
    weight = parts.take(prefix + ".weight", " ".join(_VALUES), "rows", "columns")
    scale = parts.take(prefix + suffix, FLOAT_DTYPES)
    parts.drop(prefix + ".input_scale", prefix + ".activation_scale")
    rows, columns = weight.shape
    shape = scale.shape if len(scale.shape) == 2 else (math.prod(scale.shape), 1)
    if shape == (1, 1):
        size = rows, columns
    elif shape == (rows, 1):
        size = 1, columns
    if size is None or not rows or not columns or shape != (math.ceil(rows / size[0]), math.ceil(columns / size[1])):
        blocks = f", or one per block of {size[0]} × {size[1]}" if size else ""
        raise fault(scale, f"has shape {list(scale.shape)} beside weights {list(weight.shape)}, expected one number, one a row{blocks}")
    kind = weight.dtype.removeprefix("F8_")
    size = min(size[0], rows), min(size[1], columns)
    method = f"FP8 {kind}" + (f" in blocks of {size[0]} × {size[1]}" if 1 < size[0] < rows else "")
    return off_grid(weight.name, (rows, columns), weight.file.path, method, partial(_open, weight, scale, shape, size))


def _open(weight: StoredTensor, scale: StoredTensor, shape: tuple[int, ...], size: tuple[int, int]) -> RowReader:
    columns, scales, values = weight.shape[1], numbers(scale).reshape(shape), _VALUES[weight.dtype]

    def read(start: int, stop: int) -> NDArray[np.float32]:
        found = values[read_bytes(weight, start * columns, stop * columns)].reshape(stop - start, columns)
        by_row = scales[np.arange(start, stop) // size[0]]  # (rows, blocks in a row)
        found *= np.repeat(by_row, size[1], axis=1)[:, :columns] if by_row.shape[1] > 1 else by_row
        return found

    return read


def _e4m3() -> NDArray[np.float32]:
    """The value of every byte."""
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    magnitude = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), np.ldexp(1 + mantissa / 8, exponent - 7))
    magnitude[codes & 127 == 127] = np.nan
    return np.where(codes < 128, magnitude, -magnitude).astype(np.float32)


_VALUES = {"F8_E4M3": _e4m3(), "F8_E5M2": (np.arange(256, dtype="<u2") << 8).view("<f2").astype(np.float32)}
