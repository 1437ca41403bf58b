"""Small layers as models have them: correlated activations, some columns much larger than the rest."""

from __future__ import annotations

import numpy as np

Matrix = np.ndarray


def layer(rows: int = 32, cols: int = 256, tokens: int = 600, seed: int = 0, salient: int = 0) -> tuple[Matrix, Matrix, Matrix]:
    """Weights (rows, cols), activations and held-out activations (tokens, cols), float32; `salient` columns see twenty times the rest."""
    rng = np.random.default_rng(seed)
    weights = 0.05 * rng.standard_normal((rows, cols)) * np.exp(0.3 * rng.standard_normal((rows, 1)))
    mixing = rng.standard_normal((cols // 4, cols)) / np.sqrt(cols // 4)
    x = rng.standard_normal((2 * tokens, cols // 4)) @ mixing + 0.3 * rng.standard_normal((2 * tokens, cols))
    x[:, rng.permutation(cols)[:salient]] *= 20
    return weights.astype(np.float32), x[:tokens].astype(np.float32), x[tokens:].astype(np.float32)


def output_error(weights: Matrix, values: Matrix, x: Matrix) -> float:
    """‖(W − Ŵ) X‖ / ‖W X‖."""
    return float(np.linalg.norm((values - weights) @ x.T) / np.linalg.norm(weights @ x.T))
