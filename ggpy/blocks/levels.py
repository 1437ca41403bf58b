"""The sixteen uneven levels of IQ4_NL and IQ4_XS, close together around zero where most weights are, and the search for their scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks.rounding import first_peak, running_sum
from ggpy.blocks.search import NOTHING

LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
REACH = 7  # trials on either side of the first


def nearest_level(values: np.ndarray) -> NDArray[np.uint8]:
    """Index of the nearest level, of two as near the upper; the last for NaN."""
    upper = np.searchsorted(LEVELS, values, side="right").clip(1, len(LEVELS) - 1)
    return (upper - (values - LEVELS[upper - 1] < LEVELS[upper] - values)).astype(np.uint8)


def level_scale(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scale, float32 (m,), under which the levels stand for sub-blocks `x`, float32 (m, n), with weights alike.

    ggml's `quantize_row_iq4_nl_impl`: a trial makes the peak level -127 + k, k = 0, then -7 .. 7. Levels q of a trial have the
    least-squares scale s = sum(w q x) / sum(w q q), which explains s * sum(w q x) of sum(w x x); the trial that explains most is kept.
    0 for a sub-block without a magnitude of 1e-15.
    """
    peak = first_peak(x)[:, 0]

    def sums(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        level = LEVELS[nearest_level(inverse[:, None] * x)]
        wq = weights * level
        return running_sum(wq * x), running_sum(wq * level)

    sum_qx, sum_q2 = sums(np.float32(1) / (-peak / LEVELS[0]))
    scale = np.where(sum_q2 > 0, sum_qx / sum_q2, np.float32(0))
    best = scale * sum_qx
    for k in range(-REACH, REACH + 1):
        sum_qx, sum_q2 = sums((LEVELS[0] + np.float32(k)) / peak)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = np.where(better, sum_qx / sum_q2, scale)
        best = np.where(better, scale * sum_qx, best)
    return np.where(np.abs(peak) < NOTHING, np.float32(0), scale)
