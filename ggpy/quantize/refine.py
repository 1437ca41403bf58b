"""Blocks made better under a Gram matrix: one sub-block after the other is chosen anew while all other values stay as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.kernels.encode.wide import LANES
from ggpy.kernels.quantize.refine import WORDS
from ggpy.quantize.factor import to_upper_factor
from ggpy.quantize.lane_parts import grid_of, lanes_for, to_blocks, to_lanes, trials
from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import run_kernel


def refine(
    weights: NDArray[np.float32],
    blocks: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    block_format: BlockFormat,
    *,
    sweeps: int = 1,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """`blocks`, uint8 (rows, row_bytes), of `weights` W, float32 (rows, cols), changed to V of smaller tr((W - V) H (W - V)ᵀ).

    matrix: H, positive definite, float64 (cols, cols). Coordinate descent as in QuantEase (arXiv 2309.01885), only that a step is not one
    value but a whole sub-block with its scale: see the kernel. Those of the largest activation go first, all of them `sweeps` times.
    """
    grid, (rows, cols) = grid_of(block_format), weights.shape
    sub, block, lanes = grid.sub_values, block_format.block_values, lanes_for(rows)
    parts = to_lanes(blocks, block_format)
    values, errors = np.zeros((2, cols, lanes), np.float32)
    values[:, :rows] = dequantize(blocks, block_format).T
    errors[:, :rows] = weights.T - values[:, :rows]
    steps, address = trials(grid), kernel("quantize.refine", block_format.name.lower())
    better, quants, counter = np.zeros(lanes, np.float32), np.zeros((sub, lanes), np.uint8), np.zeros(1, np.int64)
    single = matrix.astype(np.float32)
    activation = np.diagonal(matrix).reshape(-1, sub).sum(1)
    for number in np.argsort(-activation, kind="stable").tolist() * sweeps:
        columns = slice(sub * number, sub * (number + 1))
        corner = matrix[columns, columns].copy()
        pull = np.linalg.solve(corner, single[columns] @ errors)
        own = values[columns].copy()
        targets = (own + pull).astype(np.float32)
        to_upper_factor(corner)
        diagonal = np.diagonal(corner)
        feedback, importance = np.ascontiguousarray((corner / diagonal).T, np.float32), (diagonal * diagonal).astype(np.float32)
        units = np.ascontiguousarray(parts.units[:, sub * number // block])
        multiples = np.ascontiguousarray(parts.multiples[:, number])
        counter[0] = 0
        words = {
            "targets": targets, "values": own, "better": better, "quants": quants, "units": units, "multiples": multiples,
            "feedback": feedback, "importance": importance, "trials": steps, "counter": counter,
        }  # fmt: skip
        numbers = {name: array.ctypes.data for name, array in words.items()}
        numbers |= {"n_trials": len(steps), "stride": 4 * lanes, "groups": lanes // LANES}
        run_kernel(address, np.array([numbers[word] for word in WORDS], np.int64), threads)
        errors[columns] += values[columns] - own
        values[columns], parts.multiples[:, number] = own, multiples
        parts.quants[columns] = np.where(better > 0, quants, parts.quants[columns])
    return to_blocks(parts, rows, block_format)
