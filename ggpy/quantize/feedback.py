"""Weights through the kernel of `ggpy.kernels.quantize.feedback`, panel by panel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat
from ggpy.kernels.encode.wide import LANES
from ggpy.kernels.quantize.feedback import PANEL, WORDS
from ggpy.quantize.factor import Factor
from ggpy.quantize.lane_parts import LaneParts, grid_of, lanes_for, to_blocks, trials
from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import run_kernel


def with_feedback(weights: NDArray[np.float32], factor: Factor, block_format: BlockFormat, threads: int) -> NDArray[np.uint8]:
    """Blocks of `weights`, uint8 (rows, row_bytes). What the errors of earlier panels do to a panel is a product of matrices."""
    grid, (rows, cols) = grid_of(block_format), weights.shape
    block, sub, lanes = block_format.block_values, grid.sub_values, lanes_for(rows)
    w, errors = np.zeros((2, cols, lanes), np.float32)
    w[:, :rows] = weights.T[factor.order]
    parts = LaneParts.empty(rows, cols, block_format)
    steps, address = trials(grid), kernel("quantize.feedback", block_format.name.lower())
    for start in range(0, cols, PANEL):
        stop = min(start + PANEL, cols)
        targets, corner = w[start:stop], np.zeros((stop - start, stop - start), np.float32)
        if factor.feedback is not None:
            targets = targets + factor.feedback[start:stop, :start] @ errors[:start]
            corner = np.ascontiguousarray(factor.feedback[start:stop, start:stop])
        own = LaneParts.empty(rows, stop - start, block_format)
        arrays = {
            "weights": w[start:], "targets": targets, "errors": errors[start:], "quants": own.quants, "units": own.units,
            "multiples": own.multiples, "feedback": corner, "importance": factor.importance[start:], "trials": steps,
            "counter": np.zeros(1, np.int64),
        }  # fmt: skip
        numbers = {name: array.ctypes.data for name, array in arrays.items()}
        numbers |= {"n_trials": len(steps), "columns": stop - start, "stride": 4 * lanes, "groups": lanes // LANES}
        run_kernel(address, np.array([numbers[word] for word in WORDS], np.int64), threads)
        order = factor.order[start:stop]
        parts.quants[order] = own.quants
        parts.units[:, order[::block] // block] = own.units
        parts.multiples[:, order[::sub] // sub] = own.multiples
    return to_blocks(parts, rows, block_format)
