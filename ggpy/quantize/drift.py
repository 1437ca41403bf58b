"""Weights that make up for what their inputs have lost: the W' whose outputs on the inputs x, which quantized layers give, are nearest to
those of W on the inputs that the model as it was gives.

With H = Σ x xᵀ and D = Σ (exact − x) xᵀ these are W + W D H⁻¹, by least squares. Quantizing them with H then has the error of the inputs in
mind too, which is what GPTAQ (arXiv 2504.02692) does column by column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.quantize.factor import solve, to_upper_factor
from ggpy.quantize.products import Products

DAMPING, STRENGTH = 0.5, 0.5


def made_up_for(
    weights: NDArray[np.float32],
    gram: np.ndarray,
    drift: NDArray[np.float64],
    products: Products,
    damping: float = DAMPING,
    strength: float = STRENGTH,
) -> NDArray[np.float32]:
    """W', float32 (rows, cols), of weights (rows, cols), H and D (cols, cols). damping: what is added to the diagonal of H, as a share of
    its mean, and strength, how much of the way is gone, see to it that what is of this text alone is not learnt by heart."""
    matrix = np.array(gram, np.float64)
    mean = float(np.diagonal(matrix).mean()) if len(matrix) else 0.0
    if not mean > 0:
        return weights
    matrix.flat[:: len(matrix) + 1] += damping * mean
    to_upper_factor(matrix)
    moved = products.linear(weights, drift.T.astype(np.float32))[0].T.astype(np.float64)
    solve(matrix, moved)
    return (weights + strength * moved.T).astype(np.float32)
