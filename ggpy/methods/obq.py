"""OBQ: quantize one weight at a time, always the one that costs least now, and let all that are left make up for its error.

Exact for what it does, a row at a time with cols³ operations each: the yardstick GPTQ is measured with, not a tool for whole models.
Source: Frantar and Alistarh 2022, "Optimal Brain Compression" (arXiv:2208.11580), section 5, after the Optimal Brain Surgeon of Hassibi and
Stork.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.methods.grids import Grid, affine_grid
from ggpy.methods.hessian import DAMPING, hessian, inverse
from ggpy.methods.quantized import Matrix, Quantized, check, in_groups
from ggpy.methods.zero_point import affine_bits

_COMPACT = 64  # steps after which what is done with is left out of the matrix


def quantize(weights: Matrix, activations: Matrix, *, bits: int = 4, group: int = 64, damping: float = DAMPING) -> Quantized:
    """Zero-point levels chosen first, for every `group` weights; then row by row, the cheapest weight first."""
    check(weights, activations)
    groups = in_groups(weights, group)
    scale, zero, highest = affine_grid(groups, bits)
    scale, zero = np.repeat(scale[..., 0], group, axis=1), np.repeat(zero[..., 0], group, axis=1)
    remaining = inverse(hessian(activations, damping))
    rows = [quantize_row(row, remaining, Grid(s, z, highest)) for row, s, z in zip(weights, scale, zero, strict=True)]
    return Quantized(np.stack(rows).astype(np.float32), bits + affine_bits(bits) / group)


def quantize_row(row: np.ndarray, inverse_hessian: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """The levels of a row (cols,); `grid` has scale and zero for each of its weights."""
    result, left = np.empty(len(row)), np.arange(len(row))
    w, h, done = row.astype(np.float64), inverse_hessian.copy(), np.zeros(len(row), bool)
    for step in range(len(row)):
        if step % _COMPACT == 0:
            left, w, h = left[~done], w[~done], h[np.ix_(~done, ~done)]
            done = np.zeros(len(left), bool)
            levels = Grid(grid.scale[left], grid.zero[left], grid.highest)
        errors = w - levels.nearest(w)
        costs = np.where(done, np.inf, errors**2 / np.where(done, 1, np.diagonal(h)))
        p = int(np.argmin(costs))  # the least (w - q)² / [H⁻¹]_pp
        result[left[p]] = w[p] - errors[p]
        done[p] = True
        column = h[:, p] / h[p, p]
        w -= column * errors[p]
        h -= np.outer(column, h[p])  # H⁻¹ without row and column p
    return result
