"""The second-order view that OBQ, GPTQ and SpQR share: an error E of a row costs E H Eᵀ, H being the sum of x xᵀ over activations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DAMPING = 0.05
"""Of the mean diagonal. GPTQ's paper has 0.01 and calibrates on 262144 tokens; on some thousand, that fits them too closely."""


def hessian(activations: np.ndarray, damping: float = DAMPING) -> NDArray[np.float64]:
    """Σ x xᵀ, float64 (cols, cols), with `damping` times its mean diagonal added to the diagonal, so that it can be inverted."""
    x = activations.astype(np.float64)
    h = x.T @ x
    mean = np.trace(h) / len(h) or 1.0
    h[np.diag_indices_from(h)] += damping * mean
    return h


def inverse(h: NDArray[np.float64]) -> NDArray[np.float64]:
    """H⁻¹, symmetric to the last bit. Its diagonal says how *little* a weight matters: 1 / [H⁻¹]_jj is what moving weight j costs once all
    others have moved to make up for it."""
    found = np.linalg.inv(h)
    return (found + found.T) / 2


def feedback(h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper triangular U with UᵀU = H⁻¹. Row j, divided by U_jj, is how columns j + 1 … make up for an error in column j, once those before
    it are fixed: what OBQ finds by eliminating column after column, from one Cholesky decomposition."""
    return np.linalg.cholesky(inverse(h)).T.astype(np.float64, copy=False)
