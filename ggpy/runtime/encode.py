"""Encoding weights into blocks on all cores: the compiled encoder of a format where there is one, else its NumPy reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat
from ggpy.blocks.block_format import not_finite, require_finite
from ggpy.errors import GGPyError
from ggpy.runtime.compiled import has_kernel, kernel
from ggpy.runtime.parallel import run_kernel

_GROUP = 16  # values a compiled encoder takes at least: formats of single values count in groups
_SHARE = 1 << 16  # values below which another thread is not worth starting
_PIECE = 1 << 18  # values the NumPy reference encodes at a time
_NO_FAULT = np.iinfo(np.int64).max


def encode_rows(
    values: NDArray[np.float32], block_format: BlockFormat, threads: int = 1, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Blocks of `values`, float32 (rows, cols): uint8 (rows, row_bytes), equal for every number of threads.

    out: where the bytes go, contiguous uint8 (rows, row_bytes); allocated when None.
    ValueError: cols is not a whole number of blocks, or a value is NaN or Inf (the first one is named by its flat index).
    GGPyError: the format cannot be written.
    """
    if block_format.encode is None:
        raise GGPyError(f"no encoder for {block_format.name} blocks (ggml type {block_format.ggml_type})")
    values = np.ascontiguousarray(values, dtype=np.float32)
    rows, cols = values.shape
    shape = (rows, block_format.row_bytes(cols))
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be contiguous uint8 {shape}, not {out.dtype} {out.shape}")

    unit = max(block_format.block_values, _GROUP)
    compiled = values.size // unit * unit if has_encoder(block_format) else 0
    if compiled:
        _run(values, out, block_format, compiled // unit, max(1, min(threads, compiled // _SHARE)))
    if compiled < values.size:
        _reference(values, out, block_format, compiled)
    return out


def has_encoder(block_format: BlockFormat) -> bool:
    """Whether the format has a compiled encoder. Imports nothing heavy."""
    return has_kernel(f"encode.{block_format.name.lower()}")


def _run(values: np.ndarray, out: np.ndarray, block_format: BlockFormat, units: int, threads: int) -> None:
    progress = np.array([0, _NO_FAULT], np.int64)  # next unit, index of the first NaN or Inf
    counter = progress.ctypes.data
    words = np.array([values.ctypes.data, out.ctypes.data, units, counter, counter + 8], np.int64)
    run_kernel(kernel(f"encode.{block_format.name.lower()}", "encode"), words, threads)
    if progress[1] != _NO_FAULT:
        index = int(progress[1])
        raise not_finite(block_format.name, float(values.flat[index]), index)


def _reference(values: np.ndarray, out: np.ndarray, block_format: BlockFormat, start: int) -> None:
    """Encode from value `start` on by the NumPy reference, a piece at a time to bound its temporaries."""
    assert block_format.encode is not None
    blocks = values.reshape(-1, block_format.block_values)
    target = out.reshape(-1, block_format.block_bytes)
    step = max(1, _PIECE // block_format.block_values)
    for first in range(start // block_format.block_values, len(blocks), step):
        piece = blocks[first : first + step]
        require_finite(piece, block_format.name, first * block_format.block_values)
        target[first : first + step] = block_format.encode(piece)
