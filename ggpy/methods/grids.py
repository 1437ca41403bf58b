"""Evenly spaced levels: what a group of weights may become once its scale and its zero point are chosen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Grid(NamedTuple):
    """The levels scale * (q - zero), q = 0 … highest; scale and zero float32, of any shape that broadcasts with the values."""

    scale: NDArray[np.float32]
    zero: NDArray[np.float32]
    highest: int

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """For every value the level that is closest, ties to the even q."""
        quants = np.clip(np.rint(values / self.scale) + self.zero, 0, self.highest)
        return (quants - self.zero) * self.scale


def absmax_grid(groups: np.ndarray, bits: int) -> Grid:
    """Per group float (…, n), scale and zero (…, 1): 2**bits - 1 levels around 0, of which the outermost is the largest magnitude."""
    most = 2 ** (bits - 1) - 1
    scale = half(np.abs(groups).max(axis=-1, keepdims=True) / most)
    return Grid(scale, np.full_like(scale, most), 2 * most)


def affine_grid(groups: np.ndarray, bits: int) -> Grid:
    """Per group float (…, n), scale and zero (…, 1): 2**bits levels from its least to its largest value, one of them 0.

    The range is widened to 0 where all values have one sign, so that the zero point is a level itself and takes `bits` bits.
    """
    highest = 2**bits - 1
    low = np.minimum(groups.min(axis=-1, keepdims=True), 0)
    high = np.maximum(groups.max(axis=-1, keepdims=True), 0)
    scale = half((high - low) / highest)
    return Grid(scale, np.clip(np.rint(-low / scale), 0, highest).astype(np.float32), highest)


def half(scale: np.ndarray) -> NDArray[np.float32]:
    """Scales as they are stored, in half precision; 1 where a group is all zeros or its scale too small to be stored."""
    with np.errstate(over="ignore"):
        stored = scale.astype(np.float16).astype(np.float32)
    return np.where(stored == 0, np.float32(1), stored)
