"""SpQR: GPTQ in small groups, whose scales and zero points are quantized too, and a few weights, found one by one, kept in half precision.

An outlier here is a single weight that costs much: because it spoils its group's range, or because it matters to the output. LLM.int8()
keeps whole columns, and for the sake of the activations.
Source: Dettmers et al. 2023, "SpQR" (arXiv:2306.03078), sections 3 and 4, algorithm 1; thresholds as in its code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.methods.grids import Grid, affine_grid
from ggpy.methods.hessian import feedback, hessian
from ggpy.methods.quantized import INDEX_BITS, Matrix, Quantized, check, in_groups

STATISTIC_BITS, STATISTIC_ROWS = 3, 16  # of a scale or zero point; rows whose statistics share a range, two half-precision numbers
VALUE_BITS = 16  # of an outlier


def quantize(
    weights: Matrix, activations: Matrix, *, bits: int = 3, group: int = 16, threshold: float = 0.2, damping: float = 1.0
) -> Quantized:
    """threshold: what a weight may cost, as a part of what leaving it out altogether would cost on average, before it is an outlier."""
    check(weights, activations)
    in_groups(weights, group)
    rows, cols = weights.shape
    order = np.argsort(-np.square(activations).sum(axis=0), kind="stable")  # the columns with the largest activations first
    u = feedback(hessian(activations[:, order], damping))
    left = weights.T[order].astype(np.float64)  # (cols, rows)
    values, n_outliers = np.empty_like(left), 0
    most = threshold * float((left.var(axis=1) / np.diagonal(u) ** 2).mean())
    for start in range(0, cols, group):
        sizes = np.diagonal(u)[start : start + group]
        grid = _group_grid(left[start : start + group].T, sizes, bits, most)
        for j in range(start, start + group):
            rounded = grid.nearest(left[j])
            outlier = ((left[j] - rounded) / u[j, j]) ** 2 > most
            kept = left[j].astype(np.float16)
            values[j] = np.where(outlier, kept, rounded)
            n_outliers += int(outlier.sum())
            error = (left[j] - values[j]) / u[j, j]
            left[j + 1 :] -= np.outer(u[j, j + 1 :], error)
    restored = np.empty_like(values)
    restored[order] = values
    statistics = 2 * (STATISTIC_BITS + 2 * 16 / STATISTIC_ROWS) / group
    outliers = n_outliers * (VALUE_BITS + INDEX_BITS) / weights.size + 32 / cols  # and where each row's begin
    return Quantized(np.ascontiguousarray(restored.T, np.float32), bits + statistics + outliers + INDEX_BITS / rows)


def _group_grid(values: NDArray[np.float64], sizes: NDArray[np.float64], bits: int, most: float) -> Grid:
    """The levels of a group (rows, group), made for the weights that are not likely outliers: those without which the others' errors would
    shrink by more than `most`. sizes: U_jj of its columns."""
    group = values.shape[1]
    others = np.array([[k for k in range(group) if k != j] for j in range(group)])
    costs = ((values - affine_grid(values, bits).nearest(values)) / sizes) ** 2
    apart = values[:, others]  # (rows, group, group - 1)
    costs_apart = ((apart - affine_grid(apart, bits).nearest(apart)) / sizes[others]) ** 2
    usual = costs.sum(axis=1, keepdims=True) - costs_apart.sum(axis=2) <= most
    count = np.maximum(usual.sum(axis=1, keepdims=True), 1)
    mean = (values * usual).sum(axis=1, keepdims=True) / count
    low, high = (np.asarray(f(np.where(usual, values, mean), axis=1)) for f in (np.min, np.max))
    highest = 2**bits - 1
    scale = (np.maximum(high, 0) - np.minimum(low, 0)) / highest
    scale[scale == 0] = 1
    zero = -np.minimum(low, 0) / scale
    stored = _statistics(scale)
    return Grid(np.where(stored == 0, np.float32(1), stored), np.rint(_statistics(zero)), highest)


def _statistics(values: np.ndarray) -> NDArray[np.float32]:
    """Scales or zero points (rows,) of a group of columns, as evenly spaced levels between the extremes of every 16 rows."""
    rows = len(values)
    padded = np.pad(values, (0, -rows % STATISTIC_ROWS), mode="edge").reshape(-1, STATISTIC_ROWS)
    low = padded.min(axis=1, keepdims=True).astype(np.float16).astype(np.float32)
    step = ((padded.max(axis=1, keepdims=True) - low) / (2**STATISTIC_BITS - 1)).astype(np.float16).astype(np.float32)
    step[step == 0] = 1
    quants = np.clip(np.rint((padded - low) / step), 0, 2**STATISTIC_BITS - 1)
    return (low + quants * step).reshape(-1)[:rows].astype(np.float32)
