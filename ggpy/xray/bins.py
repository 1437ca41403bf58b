"""Counts over many powers of two: what a histogram is made from while values stream past, and what quantiles are read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bins:
    """Bins of equal width in log2, `per_octave` of them from 2^low to 2^high; what lies outside counts in the first or the last."""

    low: int
    high: int
    per_octave: int

    @property
    def count(self) -> int:
        return (self.high - self.low) * self.per_octave

    def counted(self, values: np.ndarray) -> NDArray[np.int64]:
        """How many of the positive, finite float values are in each bin: (count,). Others count nowhere."""
        values = values[(values > 0) & (values < np.inf)]
        at = np.floor((np.log2(values) - self.low) * self.per_octave)
        return np.bincount(at.clip(0, self.count - 1).astype(np.int64), minlength=self.count)

    def lower(self, index: float) -> float:
        """Where a bin begins."""
        return 2.0 ** (self.low + index / self.per_octave)

    def pairs(self, counts: Sequence[int]) -> list[tuple[float, int]]:
        """Where a bin begins and what it counts, of all that are not empty."""
        return [(float(f"{self.lower(i):.5g}"), count) for i, count in enumerate(counts) if count]

    def quantile(self, counts: np.ndarray, share: float, zeros: int = 0) -> float:
        """The value below which `share` of what was counted lies, within its bin by interpolation; `zeros`: how many more values are 0. NaN
        for nothing."""
        total = int(counts.sum()) + zeros
        if not total:
            return math.nan
        wanted = share * total - zeros
        if wanted <= 0:
            return 0.0
        below = np.cumsum(counts)
        at = min(int(np.searchsorted(below, wanted)), self.count - 1)
        inside = 1 - (float(below[at]) - wanted) / max(1, int(counts[at]))
        return self.lower(at + min(1.0, max(0.0, inside)))


ERRORS = Bins(-24, 8, 16)  # relative errors of blocks
SCALES = Bins(-56, 24, 4)  # magnitudes of scales: half precision times those of sub-blocks, and E8M0
