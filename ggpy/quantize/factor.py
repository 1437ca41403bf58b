"""A Gram matrix made ready for GPTQ: an order of columns that blocks allow, a diagonal that keeps it honest, and its triangular factor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat

_BLOCK = 128  # columns factored at a time: few enough that LAPACK uses one thread, whose sums are always the same


class Factor(NamedTuple):
    """order: which column comes when. With H = A Aᵀ in that order, A upper triangular: feedback, float32 (n, n), has a_ij / a_jj for i < j
    in row j, and anything elsewhere, or is None for zeros; importance, float32 (n,), a_jj²: what an error costs that later columns can
    still make good."""

    order: NDArray[np.intp]
    feedback: NDArray[np.float32] | None
    importance: NDArray[np.float32]


def factored(gram: np.ndarray, order: NDArray[np.intp], damping: float, shrinkage: float) -> Factor:
    """The factor of `gram`, (n, n), whose diagonal is made larger by `regularized`."""
    upper = regularized(gram, damping, shrinkage, order)
    to_upper_factor(upper)
    diagonal = np.diagonal(upper).copy()
    feedback = np.empty(upper.shape, np.float32)
    for start in range(0, len(upper), _BLOCK):
        columns = slice(start, start + _BLOCK)
        feedback[columns] = (upper[:, columns] / diagonal[columns]).T
    return Factor(order, feedback, (diagonal * diagonal).astype(np.float32))


def regularized(gram: np.ndarray, damping: float, shrinkage: float, order: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
    """A copy of `gram` in `order`: off the diagonal `1 - shrinkage` of what it was, on it more by `damping` times its mean.

    Of a matrix without any input, the identity.
    """
    matrix = np.array(gram, np.float64) if order is None else gram[np.ix_(order, order)].astype(np.float64, copy=False)
    diagonal = np.diagonal(matrix).copy()
    mean = float(diagonal.mean()) if len(diagonal) else 0.0
    if not mean > 0:
        return np.eye(len(gram))
    matrix *= (1 - shrinkage) / mean
    np.fill_diagonal(matrix, diagonal / mean + damping)
    return matrix


def to_upper_factor(matrix: NDArray[np.float64]) -> None:
    """Turn the upper triangle of a positive definite matrix into that of A, upper triangular, A Aᵀ being the matrix; what lies below the
    diagonal is of no use afterwards. From the last columns to the first; each sum is the same for every number of threads."""
    for stop in range(len(matrix), 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        columns = matrix[:stop, start:stop]
        columns -= matrix[:stop, stop:] @ matrix[start:stop, stop:].T
        corner = columns[start:]
        corner[...] = np.linalg.cholesky(corner[::-1, ::-1])[::-1, ::-1]
        columns[:start] = columns[:start] @ np.linalg.inv(corner).T


def solve(upper: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Turn values, (n, m), into (A Aᵀ)⁻¹ values, A being the upper triangle of `upper`."""
    blocks = [(max(0, stop - _BLOCK), stop) for stop in range(len(upper), 0, -_BLOCK)]
    for start, stop in blocks:
        values[start:stop] -= upper[start:stop, stop:] @ values[stop:]
        values[start:stop] = np.linalg.solve(np.triu(upper[start:stop, start:stop]), values[start:stop])
    for start, stop in reversed(blocks):
        values[start:stop] -= upper[:start, start:stop].T @ values[:start]
        values[start:stop] = np.linalg.solve(np.triu(upper[start:stop, start:stop]).T, values[start:stop])


def block_order(gram: np.ndarray, block_format: BlockFormat) -> NDArray[np.intp]:
    """Columns by falling activation, as far as blocks allow: blocks by theirs, in each its sub-blocks, in each the columns.

    What is rounded first has all others to make its error good.
    """
    assert block_format.grid is not None
    activation = np.diagonal(gram).astype(np.float64)
    blocks = activation.reshape(-1, block_format.block_values // block_format.grid.sub_values, block_format.grid.sub_values)
    rank = np.lexsort((
        -activation,
        np.repeat(np.argsort(np.argsort(-blocks.sum(2), axis=None, kind="stable"), kind="stable"), blocks.shape[2]),
        np.repeat(np.argsort(np.argsort(-blocks.sum((1, 2)), kind="stable"), kind="stable"), block_format.block_values),
    ))  # fmt: skip
    return rank
