"""Blocks made better under a Gram matrix: one sub-block after the other is chosen anew while all other values stay as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.kernels.encode.wide import LANES
from ggpy.kernels.quantize.feedback import PANEL
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
    value but a whole sub-block with its scale: see the kernel. Panel by panel, those of the
    largest activation first, and all of them `sweeps` times.
    """
    sub = grid_of(block_format).sub_values
    chosen = _Rows(weights, blocks, block_format, threads)
    single = matrix.astype(np.float32)
    for panel, numbers in _panels(np.diagonal(matrix).reshape(-1, sub).sum(1), PANEL // sub) * sweeps:
        first, last = panel * PANEL, min((panel + 1) * PANEL, len(matrix))
        pull = single[first:last] @ chosen.errors
        for number in numbers:
            columns = slice(sub * number, sub * (number + 1))
            change = chosen.choose(number, matrix[columns, columns].copy(), pull[columns.start - first : columns.stop - first])
            pull -= single[first:last, columns] @ change
    return to_blocks(chosen.parts, len(weights), block_format)


class _Rows:
    """Blocks of all rows, a lane for each. errors: w - v, float32 (cols, lanes)."""

    def __init__(self, weights: NDArray[np.float32], blocks: NDArray[np.uint8], block_format: BlockFormat, threads: int):
        (rows, cols), grid, lanes = weights.shape, grid_of(block_format), lanes_for(len(weights))
        self.parts = to_lanes(blocks, block_format)
        self.values, self.errors = np.zeros((2, cols, lanes), np.float32)
        self.values[:, :rows] = dequantize(blocks, block_format).T
        self.errors[:, :rows] = weights.T - self.values[:, :rows]
        self._sub, self._n_sub, self._threads = grid.sub_values, block_format.block_values // grid.sub_values, threads
        self._steps, self._kernel = trials(grid), kernel("quantize.refine", block_format.name.lower())
        self._better, self._quants = np.zeros(lanes, np.float32), np.zeros((grid.sub_values, lanes), np.uint8)

    def choose(self, number: int, corner: NDArray[np.float64], pull: NDArray[np.float32]) -> NDArray[np.float32]:
        """Choose sub-block `number` anew: by how much its values change, (sub, lanes). corner: its part of the Gram matrix, of no use
        afterwards. pull: its part of the product of that matrix and `errors`."""
        columns, lanes = slice(self._sub * number, self._sub * (number + 1)), len(self._better)
        own, multiples = self.values[columns].copy(), np.ascontiguousarray(self.parts.multiples[:, number])
        targets = (own + np.linalg.solve(corner, pull)).astype(np.float32)
        to_upper_factor(corner)
        diagonal = np.diagonal(corner)
        arrays = {
            "targets": targets, "values": own, "better": self._better, "quants": self._quants, "multiples": multiples,
            "trials": self._steps,
            "units": np.ascontiguousarray(self.parts.units[:, number // self._n_sub]), "counter": np.zeros(1, np.int64),
            "feedback": np.ascontiguousarray((corner / diagonal).T, np.float32), "importance": (diagonal * diagonal).astype(np.float32),
        }  # fmt: skip
        words = {name: array.ctypes.data for name, array in arrays.items()}
        words |= {"n_trials": len(self._steps), "stride": 4 * lanes, "groups": lanes // LANES}
        run_kernel(self._kernel, np.array([words[word] for word in WORDS], np.int64), self._threads)
        change = own - self.values[columns]
        self.errors[columns] -= change
        self.values[columns], self.parts.multiples[:, number] = own, multiples
        self.parts.quants[columns] = np.where(self._better > 0, self._quants, self.parts.quants[columns])
        return change


def _panels(activation: NDArray[np.float64], size: int) -> list[tuple[int, list[int]]]:
    """Panels of `size` sub-blocks and, of each, the sub-blocks; both by falling activation."""
    sums = np.add.reduceat(activation, np.arange(0, len(activation), size))
    ranked = np.argsort(-activation, kind="stable")
    return [
        (panel, [number for number in ranked.tolist() if number // size == panel]) for panel in np.argsort(-sums, kind="stable").tolist()
    ]
