"""GPTQ: OBQ with the same order of columns for all rows, so that the inverse Hessian is decomposed once and not for every row.

Column after column is rounded, and its error spread over the columns that follow. The order hardly matters for a row of a large layer; that
it is the same for all of them makes the method a thousand times as fast as OBQ.
Source: Frantar et al. 2023, "GPTQ" (arXiv:2210.17323), section 3 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ggpy.methods.grids import Grid, affine_grid
from ggpy.methods.hessian import DAMPING, feedback, hessian
from ggpy.methods.quantized import Matrix, Quantized, check, in_groups
from ggpy.methods.zero_point import affine_bits

_BLOCK = 128  # columns whose errors are spread at once over all that follow


def quantize(
    weights: Matrix,
    activations: Matrix,
    *,
    bits: int = 4,
    group: int = 64,
    damping: float = DAMPING,
    fixed_grid: bool = False,
    activation_order: bool = False,
    grid_of: Callable[[np.ndarray, int], Grid] = affine_grid,
) -> Quantized:
    """Zero-point levels, for every `group` weights as errors have left them when their turn comes; `fixed_grid`: as they are at the start.

    activation_order: the columns with the largest activations first, while there are others left to make up for their errors; by whole
    groups, and within each, so that neighbours in a row still share their scale. grid_of(values (rows, n), bits): the levels of a group.
    """
    check(weights, activations)
    in_groups(weights, group)
    rows, cols = weights.shape
    order = by_activation(activations, group) if activation_order else np.arange(cols)
    u = feedback(hessian(activations[:, order], damping))
    given = weights.T[order]  # (cols, rows)
    left = given.astype(np.float64)
    values = np.empty_like(left)
    for start in range(0, cols, _BLOCK):
        stop = min(start + _BLOCK, cols)
        errors = np.empty((stop - start, rows))
        for j in range(start, stop):
            if j % group == 0:
                source = given if fixed_grid else left
                if not fixed_grid and j + group > stop:  # the group reaches into columns that have not heard of this block's errors yet
                    source = left.copy()
                    source[stop:] -= u[start:j, stop:].T @ errors[: j - start]
                grid = _columnwise(grid_of(source[j : j + group].T, bits))
            values[j] = grid.nearest(left[j])
            errors[j - start] = (left[j] - values[j]) / u[j, j]
            left[j + 1 : stop] -= np.outer(u[j, j + 1 : stop], errors[j - start])
        left[stop:] -= u[start:stop, stop:].T @ errors
    restored = np.empty((rows, cols), np.float32)
    restored[:, order] = values.T
    return Quantized(restored, bits + affine_bits(bits) / group)


def by_activation(activations: Matrix, group: int) -> NDArray[np.intp]:
    """An order of the columns, (cols,): groups by the mean square of their activations, the largest first, and columns within a group."""
    squares = np.square(activations).mean(axis=0).reshape(-1, group)
    groups = np.argsort(-squares.mean(axis=1), kind="stable")
    columns = np.argsort(-squares[groups], axis=1, kind="stable")
    return (groups[:, None] * group + columns).reshape(-1)


def _columnwise(grid: Grid) -> Grid:
    return Grid(grid.scale[..., 0], grid.zero[..., 0], grid.highest)
