"""Encoding weights into blocks on all cores: the compiled encoder of a format where there is one, else its NumPy reference."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.blocks.block_format import not_finite, require_finite
from ggpy.errors import GGPyError
from ggpy.runtime.compiled import KernelName, has_kernel, kernel
from ggpy.runtime.parallel import run_kernel

_GROUP = 16  # values a compiled encoder takes at least: formats of single values count in groups
_SHARE = 1 << 16  # values below which another thread is not worth starting
_PIECE = 1 << 18  # values the NumPy reference encodes at a time
_NO_FAULT = np.iinfo(np.int64).max

FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Formats that values to be encoded may have, and what they are in NumPy, which knows bfloat16 only by its bits."""
_NAMES = {dtype: name for name, dtype in FLOATS.items()}
_KINDS = {"F32": 0, "F16": 1, "BF16": 2}  # as ggpy.kernels.encode.chunks numbers them


class Encoded(NamedTuple):
    """blocks: uint8 (rows, row_bytes). peak: the largest magnitude among the values, 0 where there are none."""

    blocks: NDArray[np.uint8]
    peak: float


def encode_rows(
    values: np.ndarray,
    block_format: BlockFormat,
    threads: int = 1,
    out: NDArray[np.uint8] | None = None,
    importance: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Blocks of `values`, (rows, cols): uint8 (rows, row_bytes), equal for every number of threads.

    values: float32, float16 or bfloat16 as FLOATS has it; anything else is converted to float32 first.
    out: where the bytes go, contiguous uint8 (rows, row_bytes); allocated when None.
    importance: float32 (cols,), finite and not negative: how much an error in each column costs, as an importance matrix has it. It changes
        nothing in formats whose bytes do not depend on it.
    ValueError: cols is not a whole number of blocks, a value is NaN or Inf (the first one is named by its flat index), or `importance` is
        not as above.
    GGPyError: the format cannot be written.
    """
    return encode_measured(values, block_format, threads, out, importance).blocks


def encode_measured(
    values: np.ndarray,
    block_format: BlockFormat,
    threads: int = 1,
    out: NDArray[np.uint8] | None = None,
    importance: NDArray[np.float32] | None = None,
) -> Encoded:
    """`encode_rows`, and the largest magnitude it saw."""
    if block_format.encode is None:
        raise GGPyError(f"no encoder for {block_format.name} blocks (ggml type {block_format.ggml_type})")
    values = np.ascontiguousarray(values, dtype=values.dtype if values.dtype in _NAMES else np.float32)
    rows, cols = values.shape
    shape = (rows, block_format.row_bytes(cols))
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be contiguous uint8 {shape}, not {out.dtype} {out.shape}")
    if importance is not None:
        _require_importance(importance, cols)
        if encoder_name(block_format, weighted=True):
            blocks, about = values.size // block_format.block_values, (np.ascontiguousarray(importance), cols // block_format.block_values)
            return Encoded(out, _run(values, out, block_format, blocks, _crew(threads, values.size), about) if blocks else 0.0)
        if block_format.encode_weighted is not None:
            return Encoded(out, _weighted_reference(values, out, block_format, importance))

    unit = max(block_format.block_values, _GROUP)
    compiled = values.size // unit * unit if has_encoder(block_format) else 0
    peak = 0.0
    if compiled:
        peak = _run(values, out, block_format, compiled // unit, _crew(threads, compiled))
    if compiled < values.size:
        peak = max(peak, _reference(values, out, block_format, compiled))
    return Encoded(out, peak)


def _require_importance(importance: np.ndarray, cols: int) -> None:
    """ValueError for what is not float32 (cols,), finite and not negative."""
    if importance.dtype != np.float32 or importance.shape != (cols,):
        raise ValueError(f"importance must be float32 ({cols},), one for each column, not {importance.dtype} {importance.shape}")
    usable = (importance >= 0) & (importance < np.inf)
    if not usable.all():
        column = int(np.argmin(usable))
        raise ValueError(f"importance of column {column} is {importance[column]}: it must be finite and not negative")


def _crew(threads: int, n_values: int) -> int:
    return max(1, min(threads, n_values // _SHARE))


def has_encoder(block_format: BlockFormat) -> bool:
    """Whether the format has a compiled encoder. Imports nothing heavy."""
    return encoder_name(block_format) is not None


@functools.cache
def encoder_name(block_format: BlockFormat, weighted: bool = False) -> KernelName | None:
    """The kernel that encodes the format, or, weighted, encodes it with importance; None where there is none. Imports nothing heavy."""
    module = f"encode.weighted.{block_format.name.lower()}" if weighted else f"encode.{block_format.name.lower()}"
    return (module, "encode") if has_kernel(module) else None  # looks through the file system


def widened(values: np.ndarray) -> NDArray[np.float32]:
    """float32 of what `encode_rows` takes, (rows, cols); exact, NaN and Inf included."""
    if values.dtype == np.float32:
        return values
    return dequantize(np.ascontiguousarray(values).view(np.uint8), BLOCKS[_NAMES[values.dtype]])


def _run(
    values: np.ndarray,
    out: np.ndarray,
    block_format: BlockFormat,
    units: int,
    threads: int,
    about: tuple[NDArray[np.float32], int] | None = None,
) -> float:
    """Encode by the compiled encoder; about: for one that takes it, importance and blocks in a row. Returns the largest magnitude."""
    progress = np.array([0, _NO_FAULT, 0], np.int64)  # next unit, index of the first NaN or Inf, bits of the largest magnitude
    counter = progress.ctypes.data
    words = [values.ctypes.data, out.ctypes.data, units, counter, counter + 8, counter + 16, _KINDS[_NAMES[values.dtype]]]
    if about is not None:
        words += [about[0].ctypes.data, about[1]]
    name = encoder_name(block_format, weighted=about is not None)
    assert name is not None
    run_kernel(kernel(*name), np.array(words, np.int64), threads)
    if progress[1] != _NO_FAULT:
        index = int(progress[1])
        raise not_finite(block_format.name, float(widened(values.reshape(1, -1)[:, index : index + 1])[0, 0]), index)
    return float(progress[2:].astype(np.uint32).view(np.float32)[0])


def _reference(values: np.ndarray, out: np.ndarray, block_format: BlockFormat, start: int) -> float:
    """Encode from value `start` on by the NumPy reference, a piece at a time to bound its temporaries. Returns the largest magnitude."""
    assert block_format.encode is not None
    blocks = values.reshape(-1, block_format.block_values)
    target = out.reshape(-1, block_format.block_bytes)
    step, peak = max(1, _PIECE // block_format.block_values), 0.0
    for first in range(start // block_format.block_values, len(blocks), step):
        piece = widened(blocks[first : first + step])
        require_finite(piece, block_format.name, first * block_format.block_values)
        target[first : first + step] = block_format.encode(piece)
        peak = max(peak, float(np.abs(piece).max()))
    return peak


def _weighted_reference(values: np.ndarray, out: np.ndarray, block_format: BlockFormat, importance: NDArray[np.float32]) -> float:
    """`_reference` with importance; whole rows, over which some formats take a mean."""
    assert block_format.encode_weighted is not None
    rows, cols = values.shape
    step, peak = max(1, _PIECE // max(1, cols)), 0.0
    for first in range(0, rows if cols else 0, step):
        piece = widened(values[first : first + step])
        require_finite(piece, block_format.name, first * cols)
        out[first : first + step] = block_format.encode_weighted(piece, importance)
        peak = max(peak, float(np.abs(piece).max()))
    return peak
