"""GPTQ written into GGUF blocks: quants whose errors cancel in the outputs, on scales that are chosen on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.blocks.block_format import require_finite
from ggpy.quantize.factor import block_order, factored, regularized
from ggpy.quantize.feedback import with_feedback
from ggpy.quantize.lane_parts import require_grid
from ggpy.quantize.refine import refine
from ggpy.runtime.encode import encode_rows

DAMPING, SHRINKAGE, SWEEPS = 0.01, 0.35, 2


def quantize(
    weights: NDArray[np.float32],
    gram: np.ndarray,
    block_format: BlockFormat,
    *,
    tokens: int | None = None,
    damping: float = DAMPING,
    shrinkage: float = SHRINKAGE,
    activation_order: bool = True,
    sweeps: int = SWEEPS,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Blocks of `weights` W, float32 (rows, cols), whose values V have a small tr((W - V) H (W - V)ᵀ): uint8 (rows, row_bytes).

    gram: H = Σ x xᵀ over the layer's inputs, float32 or float64 (cols, cols); its scale does not matter. In no row is the error larger than
    that of ggml's encoder with the diagonal as importance. Equal for every number of threads.
    tokens: how many inputs the sums are of, where that is known.
    damping: what is added to the diagonal, as a share of its mean. shrinkage: by how much what is off the diagonal is made smaller, since
    how inputs go together is in part that text's own; of few tokens, by more (`shrunk`). activation_order: columns that matter go first,
    as far as blocks allow it.
    sweeps: how often every sub-block is then chosen anew, all others being as they are (`refine`).
    GGPyError: the format has no grid. ValueError: shapes do not fit; a weight or a sum is NaN or Inf.
    """
    require_grid(block_format)
    cols = weights.shape[1]
    block_format.row_bytes(cols)
    require_finite(weights, block_format.name)
    _require_gram(gram, cols)
    order = block_order(gram, block_format) if activation_order else np.arange(cols)
    plain = encode_rows(weights, block_format, threads, importance=_importance(gram))
    if not plain.size:
        return plain
    shrinkage = shrunk(shrinkage, cols, tokens)
    found = with_feedback(weights, factored(gram, order, damping, shrinkage), block_format, threads)
    if sweeps:
        found = refine(weights, found, regularized(gram, damping, shrinkage), block_format, sweeps=sweeps, threads=threads)
    return np.where(_worse_by(weights, found, plain, gram, block_format)[:, None] <= 0, found, plain)


def shrunk(shrinkage: float, cols: int, tokens: int | None) -> float:
    """The shrinkage for sums over `tokens` inputs: what is left is divided by 1 + cols / tokens, as random inputs that have nothing to do
    with each other seem to go together by about that share."""
    return shrinkage if not tokens else 1 - (1 - shrinkage) / (1 + cols / tokens)


def _worse_by(
    weights: NDArray[np.float32], blocks: NDArray[np.uint8], others: NDArray[np.uint8], gram: np.ndarray, block_format: BlockFormat
) -> NDArray[np.float64]:
    """(w - v) H (w - v)ᵀ - (w - u) H (w - u)ᵀ, by one product with H, for each row w of `weights`, v of `blocks` and u of `others`: float64
    (rows,)."""
    with np.errstate(all="ignore"):  # blocks may hold Inf where weights are huge: such a row is never the better one
        v, u = dequantize(blocks, block_format), dequantize(others, block_format)
        return np.einsum("ij,ij->i", (u - v) @ gram.astype(np.float32, copy=False), (weights - v) + (weights - u), dtype=np.float64)


def _importance(gram: np.ndarray) -> NDArray[np.float32]:
    diagonal = np.diagonal(gram).astype(np.float64)
    most = diagonal.max(initial=0.0)
    return np.ascontiguousarray((diagonal / most if most > 0 else np.ones_like(diagonal)).astype(np.float32))


def _require_gram(gram: np.ndarray, cols: int) -> None:
    if gram.shape != (cols, cols):
        raise ValueError(f"Gram matrix of shape {gram.shape}: rows of {cols} weights need ({cols}, {cols})")
    if not np.isfinite(gram.sum()):
        raise ValueError("Gram matrix with values that are not finite")
    if not (np.diagonal(gram) >= 0).all():
        raise ValueError(f"the Gram matrix has {np.diagonal(gram).min()} on its diagonal: a sum of squares is not negative")
