"""Blocks as the kernels of `ggpy.kernels.quantize` have them: numbers of a column, or of a sub-block, of all rows side by side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat
from ggpy.blocks.affine_grid import Grid, Parts
from ggpy.errors import GGPyError
from ggpy.kernels.encode.wide import LANES

_STEPS = (0.06, 0.03, 0.015)  # of a scale of its own, tried up and down


class LaneParts(NamedTuple):
    """quants: uint8 (cols, lanes). units: float32 (2, blocks, lanes), d and dmin. multiples: float32 (2, sub-blocks, lanes), of scales and
    mins; where a block has one scale, it and the offset, and no units. Lanes: rows, and some more."""

    quants: NDArray[np.uint8]
    units: NDArray[np.float32]
    multiples: NDArray[np.float32]

    @classmethod
    def empty(cls, rows: int, cols: int, block_format: BlockFormat) -> LaneParts:
        grid, lanes = grid_of(block_format), lanes_for(rows)
        blocks, sub_blocks = cols // block_format.block_values, cols // grid.sub_values
        shapes = (2, blocks, lanes), (2, sub_blocks, lanes)
        return cls(np.zeros((cols, lanes), np.uint8), np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32))


def lanes_for(rows: int) -> int:
    """Lanes for that many rows: whole vectors."""
    return -(-rows // LANES) * LANES


def require_grid(block_format: BlockFormat) -> None:
    """GGPyError for a format without a grid."""
    if block_format.grid is None:
        raise GGPyError(f"no scales to choose for {block_format.name} blocks: their values are not levels times a scale")


def grid_of(block_format: BlockFormat) -> Grid:
    """The grid of a format that has one."""
    assert block_format.grid is not None
    return block_format.grid


def to_lanes(blocks: NDArray[np.uint8], block_format: BlockFormat) -> LaneParts:
    """`blocks`, uint8 (rows, row_bytes), taken apart."""
    grid, rows = grid_of(block_format), len(blocks)
    split = grid.split(blocks.reshape(-1, block_format.block_bytes))
    parts = LaneParts.empty(rows, split.quants.size // rows, block_format)

    def put(target: np.ndarray, numbers: np.ndarray) -> None:
        target[:, :rows] = numbers.reshape(rows, -1).T

    put(parts.quants, split.quants)
    pairs = ((split.d, split.dmin), (split.scales, split.mins))
    if grid.has_sub_scales:
        for target, pair in zip((parts.units, parts.multiples), pairs, strict=True):
            put(target[0], pair[0])
            put(target[1], pair[1])
    else:
        put(parts.multiples[0], split.d)
        put(parts.multiples[1], split.dmin)
    return parts


def to_blocks(parts: LaneParts, rows: int, block_format: BlockFormat) -> NDArray[np.uint8]:
    """The inverse: uint8 (rows, row_bytes)."""
    grid, block = grid_of(block_format), block_format.block_values
    n_sub = block // grid.sub_values

    def by_block(numbers: np.ndarray, count: int) -> np.ndarray:
        return np.ascontiguousarray(numbers[:, :rows].T).reshape(-1, count)

    quants = by_block(parts.quants, block)
    if grid.has_sub_scales:
        d, dmin = (by_block(u, 1).astype(np.float16) for u in parts.units)
        scales, mins = (by_block(m, n_sub).astype(np.int32) for m in parts.multiples)
        return grid.join(Parts(d, dmin, scales, mins, quants)).reshape(rows, -1)
    scale, offset = (by_block(m, 1).astype(np.float16) for m in parts.multiples)
    ones = np.ones(scale.shape, np.int32)
    return grid.join(Parts(scale, offset, ones * grid.scales[0], ones * grid.mins[0], quants)).reshape(rows, -1)


def trials(grid: Grid, steps: tuple[float, ...] = _STEPS, rounds: int = 2) -> NDArray[np.float32]:
    """Steps from a sub-block's scale and offset, float32 (n, 3), each from the best so far: a factor and a multiple for the scale, and one
    for the offset, as `ggpy.kernels.quantize.sub_block` takes them; `steps` of a scale of its own, or `rounds` of one multiple."""
    found: list[tuple[float, float, float]] = [(1, 0, 0)]
    if grid.has_sub_scales:
        for way in (1, -1) * rounds:
            found += [(1, way, 0), (1, 0, way), (1, way, way)] if grid.has_mins else [(1, way, 0)]
    else:
        for step in steps:
            for way in (step, -step):
                found += [(1 + way, 0, 0), (1, 0, 8 * way), (1 + way, 0, -8 * way)] if grid.has_mins else [(1 + way, 0, 0)]
    return np.array(found, np.float32)
