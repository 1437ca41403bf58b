"""Products with matrices that are read a piece at a time."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.converter.certificate import products
from ggpy.converter.certificate.products import Products, Rows


@pytest.mark.parametrize(("n", "n_rows", "n_columns"), [(1, 1, 64), (3, 77, 172), (13, 300, 40), (160, 33, 576)])
def test_products_are_those_of_float64_and_the_threads_change_no_bit(n: int, n_rows: int, n_columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(products, "_PIECE_VALUES", 5 * n_columns)  # many pieces
    rng = np.random.default_rng(n)
    weights, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((n_rows, n_columns), (n, n_columns)))
    rows = Rows("w", n_rows, n_columns, lambda start, stop: weights[start:stop].astype(np.float16))
    found = []
    for threads in (1, 3):
        with Products(threads) as multiply:
            found.append(multiply(x, rows))
    exact, magnitude = weights.astype(np.float16).astype(np.float64), np.abs(x).astype(np.float64) @ np.abs(weights).T
    assert found[0].shape == (n, n_rows) and np.array_equal(*found)
    assert np.all(np.abs(found[0] - x.astype(np.float64) @ exact.T) <= magnitude * 2**-20)


def test_what_is_not_finite_is_not_lost():
    weights = np.ones((4, 32), np.float32)
    weights[2, 7] = np.nan
    with Products(1) as multiply:
        result = multiply(np.ones((6, 32), np.float32), Rows("w", 4, 32, lambda start, stop: weights[start:stop]))
    assert np.isnan(result[:, 2]).all() and np.isfinite(np.delete(result, 2, 1)).all()
