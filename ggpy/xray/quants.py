"""What the blocks of a tensor show by themselves: scales, levels used and unused, what they are worth in bits, and values cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.blocks.affine_grid import Grid, sub_scales
from ggpy.blocks.block_format import split_fields
from ggpy.xray.bins import SCALES

_SCALE_FIELD = "d"


@dataclass(frozen=True)
class Quants:
    """What the blocks of a tensor hold.

    scales: counts of sub-blocks by magnitude of their scale, as `ggpy.xray.bins.SCALES` has it; of whole blocks where a format's grid is
    not known. zero_scales: how many are 0. median_scale, largest_scale: to 9 %. levels: what a quant can stand for; counts: how often each
    is used; entropy: of quants taken one by one, bits for each; all three empty or None where the grid is not known. byte_entropy: then,
    of the bytes that are no scales, bits of 8. clipped: weights of the base at least half a step beyond the range of their block; None
    without a base or a grid.
    """

    scales: tuple[int, ...]
    zero_scales: int
    median_scale: float
    largest_scale: float
    levels: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    entropy: float | None = None
    byte_entropy: float | None = None
    clipped: int | None = None

    @property
    def level_bits(self) -> float | None:
        """Bits that a quant takes; None where the grid is not known."""
        return math.log2(len(self.levels)) if self.levels else None

    @property
    def unused(self) -> list[float]:
        """Levels that no quant has."""
        return [level for level, count in zip(self.levels, self.counts, strict=True) if not count]


@dataclass
class QuantSums:
    """Counts over some blocks: of scales by magnitude, of levels or bytes by value."""

    scales: NDArray[np.int64]
    zero_scales: int
    counts: NDArray[np.int64]
    clipped: int = 0

    def add(self, other: QuantSums) -> None:
        self.scales += other.scales
        self.counts += other.counts
        self.zero_scales += other.zero_scales
        self.clipped += other.clipped


@np.errstate(all="ignore")
def take_apart(raw: NDArray[np.uint8], block_format: BlockFormat) -> tuple[NDArray[np.float32], QuantSums, Ends | None]:
    """Rows as stored, uint8 (rows, row_bytes): their values, float32 (rows, columns), what their blocks show, and what `clipped` needs."""
    blocks, grid = np.ascontiguousarray(raw).reshape(-1, block_format.block_bytes), block_format.grid
    if grid is None:
        return dequantize(raw, block_format), _by_fields(blocks, block_format), None
    parts = grid.split(blocks)
    scale, offset = sub_scales(parts)
    quants = parts.quants.reshape(len(blocks), -1, grid.sub_values)
    values = grid.levels[quants]
    values *= scale[..., None]
    values += offset[..., None]
    counts = np.bincount(parts.quants.ravel(), minlength=len(grid.levels))
    sums = QuantSums(SCALES.counted(np.abs(scale)), int(np.count_nonzero(scale == 0)), counts)
    return values.reshape(len(raw), -1), sums, Ends(grid, scale, parts.quants)


@dataclass(frozen=True)
class Ends:
    """Scales, float32 (n, sub-blocks), and quants (n, block_values), by which clipped values are told."""

    grid: Grid
    scale: NDArray[np.float32]
    quants: np.ndarray

    @np.errstate(all="ignore")
    def clipped(self, errors: NDArray[np.float32]) -> int:
        """How many values lie at least half a step beyond their block's first or last level; errors: file's minus base's, any shape."""
        grid, n, last = self.grid, 0, len(self.grid.levels) - 1
        quants, errors, scale = self.quants.ravel(), errors.ravel(), self.scale.ravel()
        for end, gap, sign in ((0, grid.levels[1] - grid.levels[0], 1), (last, grid.levels[last] - grid.levels[last - 1], -1)):
            at = np.flatnonzero(quants == end)
            n += int(np.count_nonzero(errors[at] * np.float32(sign) / scale[at // grid.sub_values] > gap * np.float32(0.5001)))
        return n


def _by_fields(blocks: NDArray[np.uint8], block_format: BlockFormat) -> QuantSums:
    scales, zeros, counts = np.zeros(SCALES.count, np.int64), 0, np.zeros(256, np.int64)
    for field, numbers in zip(block_format.fields, split_fields(blocks, block_format.fields), strict=True):
        if field.dtype.kind != "f":
            counts += np.bincount(numbers.view(np.uint8).ravel(), minlength=256)
        elif field.name == _SCALE_FIELD:
            magnitudes = np.abs(numbers.astype(np.float32))
            scales += SCALES.counted(magnitudes)
            zeros += int(np.count_nonzero(magnitudes == 0))
    return QuantSums(scales, zeros, counts)


def describe(sums: QuantSums, block_format: BlockFormat, compared: bool) -> Quants:
    """What the sums of a whole tensor say."""
    grid = block_format.grid
    median = SCALES.quantile(sums.scales, 0.5, sums.zero_scales)
    largest = SCALES.lower(int(np.flatnonzero(sums.scales)[-1]) + 0.5) if sums.scales.any() else 0.0
    shown = tuple(sums.scales.tolist()), sums.zero_scales, median, largest
    if grid is None:
        return Quants(*shown, byte_entropy=_entropy(sums.counts))
    levels, counts = tuple(grid.levels.tolist()), tuple(sums.counts.tolist())
    return Quants(*shown, levels, counts, _entropy(sums.counts), None, sums.clipped if compared else None)


def _entropy(counts: np.ndarray) -> float:
    """Σ -p log2(p), in bits."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0
