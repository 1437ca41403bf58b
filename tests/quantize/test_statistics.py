"""What is counted of inputs: right, and the same whatever is added to what and on how many threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ggpy.errors import GGPyError, ModelError
from ggpy.quantize.products import Products
from ggpy.quantize.statistics import LARGEST, UNIT, Gram, GramSums, SquareSums


def inputs(rng: np.random.Generator, tokens: int, columns: int) -> np.ndarray:
    return (rng.standard_normal((tokens, columns)) * np.exp(rng.standard_normal(columns) * 2)).astype(np.float32)


@pytest.mark.parametrize(("tokens", "columns"), [(1, 1), (3, 2), (5, 33), (40, 129), (700, 200), (2, 300)])
def test_gram_is_the_sum_of_outer_products(tokens: int, columns: int):
    x = inputs(np.random.default_rng(columns), tokens, columns)
    with Products(2) as products:
        sums = GramSums.zeros(columns)
        sums.add(x, products)
        importance = sums.importance
    expected = x.astype(np.float64).T @ x.astype(np.float64)
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    gram = sums.gram()
    assert sums.units.size == 0
    assert (np.abs(gram.matrix - expected) <= 2e-6 * scale + UNIT).all()
    assert (gram.matrix == gram.matrix.T).all()
    assert gram.tokens == tokens
    np.testing.assert_allclose(gram.importance, np.diagonal(expected) / tokens, rtol=1e-5, atol=UNIT)
    np.testing.assert_array_equal(gram.importance, importance)


def test_shards_in_whatever_order_are_the_whole():
    rng = np.random.default_rng(1)
    parts = [inputs(rng, tokens, 70) * 10.0**scale for tokens, scale in ((100, 0), (64, 1), (7, -3))]
    with Products(1) as one, Products(2) as two:
        whole, whole_squares = GramSums.zeros(70), SquareSums.zeros(70)
        for part in parts:
            whole.add(part, one)
            whole_squares.add(part)
        expected = whole.gram().matrix.tobytes()
        for order in itertools.permutations(parts):
            merged, squares = GramSums.zeros(70), SquareSums.zeros(70)
            for part in order:
                shard, some = GramSums.zeros(70), SquareSums.zeros(70)
                shard.add(part, two)
                some.add(part)
                merged.merge(shard)
                squares.merge(some)
            assert merged.gram().matrix.tobytes() == expected
            assert squares.units.tobytes() == whole_squares.units.tobytes()
            assert merged.tokens == squares.tokens == whole.tokens == 171


def test_squares_are_the_diagonal():
    x = inputs(np.random.default_rng(2), 50, 20)
    sums = SquareSums.zeros(20)
    sums.add(x)
    np.testing.assert_allclose(sums.squares, (x.astype(np.float64) ** 2).sum(0), rtol=1e-6, atol=UNIT)
    np.testing.assert_array_equal(SquareSums.zeros(3).importance, np.ones(3))
    np.testing.assert_array_equal(Gram(np.diag([2.0, 4.0]), 2).importance, np.float32([1, 2]))


def test_inputs_that_cannot_be_counted_are_refused():
    too_large = np.full((1, 4), np.sqrt(LARGEST) * 1.01, np.float32)
    with Products(1) as products:
        for sums, add in ((SquareSums.zeros(4), None), (GramSums.zeros(4), products)):
            for value, error, message in ((np.nan, ModelError, "input 2 is not finite"), (np.inf, ModelError, "not finite")):
                x = np.ones((3, 4), np.float32)
                x[1, 2] = value
                with pytest.raises(error, match=message):
                    sums.add(x, add) if isinstance(sums, GramSums) and add else sums.add(x)  # pyright: ignore
            with pytest.raises(GGPyError, match="fewer tokens"):
                sums.add(too_large, add) if isinstance(sums, GramSums) and add else sums.add(too_large)  # pyright: ignore
            assert sums.tokens == 0
            assert not sums.units.any()


@pytest.mark.parametrize("tokens", [1, 4, 5, 513, 1100])
def test_products_are_products_on_any_number_of_threads(tokens: int):
    rng = np.random.default_rng(3)
    x, weights = rng.standard_normal((tokens, 48), np.float32), rng.standard_normal((20, 48), np.float32)
    other = rng.standard_normal((7, 48), np.float32)
    with Products(1) as one, Products(2) as two:
        found, more = one.linear(x, weights, other)
        assert found.tobytes() == two.linear(x, weights)[0].tobytes()
        assert found.tobytes() == one.small(x, weights).tobytes() or tokens > 512
    np.testing.assert_allclose(found, x @ weights.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(more, x @ other.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens, columns", [(30, 70), (1700, 1041), (3, 5)])
def test_cross_sums_are_not_symmetric(tokens: int, columns: int):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((tokens, columns), np.float32), rng.standard_normal((tokens, columns), np.float32)
    found, whole = np.zeros((columns, columns)), np.zeros((columns, columns))

    def take(rows: slice, columns: slice, piece: np.ndarray) -> None:
        found[rows, columns] += piece

    def take_whole(rows: slice, columns: slice, piece: np.ndarray) -> None:
        whole[rows, columns] += piece

    with Products(2) as products:
        products.outer_sums(x, y, take, symmetric=False)
        products.outer_sums(x, x, take_whole, symmetric=True)
    np.testing.assert_allclose(found, x.T @ y, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.triu(whole), np.triu(x.T @ x), rtol=1e-4, atol=1e-3)
