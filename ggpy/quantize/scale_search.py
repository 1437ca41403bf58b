"""Scales better than those of ggml's encoders, where an error's cost is known for each column and nothing of how columns go together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.quantize.factor import Factor
from ggpy.quantize.feedback import with_feedback
from ggpy.quantize.lane_parts import require_grid
from ggpy.runtime.encode import encode_rows


def search(
    weights: NDArray[np.float32], block_format: BlockFormat, importance: NDArray[np.float32] | None = None, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Blocks of `weights`, float32 (rows, cols), with a small sum of importance * (w - v)²: uint8 (rows, row_bytes).

    importance: float32 (cols,), finite and not negative; None counts all columns alike. The steps of `ggpy.kernels.quantize.feedback`
    without any feedback: ggml's search, by these weights and not by its own mixture of importance and magnitude, then neighbouring scales
    and mins, tried on the values themselves. Of each block ggml's own bytes are kept where they are better, with importance or without.
    GGPyError: the format has no grid. ValueError: as `encode_rows`.
    """
    require_grid(block_format)
    cols = weights.shape[1]
    cost = np.ones(cols, np.float32) if importance is None else importance
    kept = encode_rows(weights, block_format, threads, importance=cost)
    if not kept.size:
        return kept
    shape = (-1, block_format.block_bytes)
    least = _block_errors(weights, kept, cost, block_format)
    share = cost / cost.max() if cost.any() else np.ones(cols, np.float32)
    for blocks in (
        encode_rows(weights, block_format, threads),
        with_feedback(weights, Factor(np.arange(cols), None, share.astype(np.float32)), block_format, threads),
    ):
        errors = _block_errors(weights, blocks, cost, block_format)
        kept = np.where((errors < least)[:, None], blocks.reshape(shape), kept.reshape(shape)).reshape(kept.shape)
        least = np.fmin(errors, least)
    return kept


def _block_errors(weights: np.ndarray, blocks: np.ndarray, importance: np.ndarray, block_format: BlockFormat) -> NDArray[np.float64]:
    """Sum of importance * (w - v)² in each block, float64 (blocks,); infinite where a value is not finite."""
    with np.errstate(all="ignore"):
        off = (weights - dequantize(blocks, block_format)).astype(np.float64)
        errors = (off * off * importance).reshape(-1, block_format.block_values).sum(1)
    return np.where(np.isnan(errors), np.inf, errors)
