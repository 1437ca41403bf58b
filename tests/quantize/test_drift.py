"""Weights that make up for what their inputs have lost: the least squares they are meant to be."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.quantize.drift import made_up_for
from ggpy.quantize.products import Products


@pytest.mark.parametrize("n", [3, 128, 200, 300])
def test_it_is_the_damped_least_squares_solution(n: int):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((500, n))
    exact, weights = x + 0.1 * rng.standard_normal((500, n)), rng.standard_normal((7, n), np.float32)
    gram, drift = x.T @ x, (exact - x).T @ x
    with Products(2) as products:
        found = made_up_for(weights, gram, drift, products, damping=0.01, strength=1.0)
        nothing = made_up_for(weights, np.zeros((n, n)), drift, products)
    damped = gram + 0.01 * np.diagonal(gram).mean() * np.eye(n)
    np.testing.assert_allclose(found, weights + weights @ drift @ np.linalg.inv(damped), atol=1e-5)
    assert np.linalg.norm(found @ x.T - weights @ exact.T) < np.linalg.norm(weights @ x.T - weights @ exact.T)
    np.testing.assert_array_equal(nothing, weights)
