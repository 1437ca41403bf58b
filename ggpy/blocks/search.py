"""The searches for scales that the K formats share, each as ggml's reference code does it, float32 operation by float32 operation.

All take sub-blocks `x`, float32 (m, n), and weights of the same shape that say how much an error at each place matters.

symmetric_scale   make_qx_quants: quants around zero, the best of nineteen trial scales
refined_scale     make_q3_quants: quants around zero, each moved while that helps
affine_scale      make_qkx2_quants, make_qkx3_quants: quants above a minimum, the best of a range of trial scales
positive_scale    make_qp_quants: quants of numbers above zero, the best of nine trial scales, then each moved while that helps
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ggpy.blocks.rounding import first_extremes, first_peak, nearest_int, running_sum

NOTHING = np.float32(1e-15)  # magnitudes below this count as zero
ROUNDS = 5  # how often the quants of a sub-block are gone through, one after the other


@dataclass(frozen=True)
class Search:
    """Trial k of `steps` spreads the sub-block's range over `largest` + first + k * step quants, `largest` being the highest quant.

    `absolute`: errors count by their magnitude instead of their square.
    """

    largest: int
    first: float
    step: float
    steps: int
    absolute: bool = False

    def spreads(self) -> np.ndarray:
        """float32 (steps,): the numbers the range is divided into."""
        trials = np.arange(self.steps, dtype=np.float32)
        return (np.float32(self.first) + np.float32(self.step) * trials) + np.float32(self.largest)


def symmetric_scale(x: np.ndarray, weights: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale, float32 (m,), and quants 0 .. 2 * reach - 1 that stand for -reach .. reach - 1, int32 (m, n).

    ggml's `make_qx_quants`: a trial divides the peak into reach + k / 10 steps, k = 0, then -9 .. 9. Quants l of a trial have the
    least-squares scale s = sum(w x l) / sum(w l l), which explains s * sum(w x l) of sum(w x x); the trial that explains most is kept.
    A sub-block without a magnitude of 1e-15 has scale 0 and quants 0, the lowest.
    """
    peak = first_peak(x)[:, 0]
    weighted = weights * x

    def trial(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        spread = -(np.float32(reach) + np.float32(0.1) * np.float32(k))
        quants = nearest_int((spread / peak)[:, None] * x).clip(-reach, reach - 1)
        l = quants.astype(np.float32)
        return quants, running_sum(weighted * l), running_sum((weights * l) * l)

    quants, sum_xl, sum_l2 = trial(0)
    scale = np.where(sum_l2 != 0, sum_xl / sum_l2, np.float32(0))
    best = scale * sum_xl
    for k in range(-9, 10):
        if k == 0:
            continue
        trial_quants, sum_xl, sum_l2 = trial(k)
        better = (sum_l2 > 0) & (sum_xl * sum_xl > best * sum_l2)
        quants = np.where(better[:, None], trial_quants, quants)
        scale = np.where(better, sum_xl / sum_l2, scale)
        best = np.where(better, scale * sum_xl, best)

    nothing = np.abs(peak) < NOTHING
    return np.where(nothing, np.float32(0), scale), np.where(nothing[:, None], 0, quants + reach)


def refined_scale(x: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale, float32 (m,), and quants 0 .. 2 * reach - 1 that stand for -reach .. reach - 1, int32 (m, n).

    ggml's `make_q3_quants`, w = x * x: from the peak divided into `reach` steps, one value after the other is rounded again under the
    least-squares scale of all others, and kept where sum(w x l)**2 / sum(w l l) grows; up to five times through the sub-block. A
    sub-block without a magnitude of 1e-15 has scale 0 and quants 0, the lowest.
    """
    peak = first_peak(x)[:, 0]
    weights = x * x
    weighted = weights * x
    quants = nearest_int((np.float32(-reach) / peak)[:, None] * x).clip(-reach, reach - 1)
    l = quants.astype(np.float32)
    sum_xl, sum_l2 = running_sum(weighted * l), running_sum((weights * l) * l)
    for _ in range(ROUNDS):
        for i in range(x.shape[1]):
            w, wx, old = weights[:, i], weighted[:, i], quants[:, i].astype(np.float32)
            rest_xl, rest_l2 = sum_xl - wx * old, sum_l2 - (w * old) * old
            rounded = nearest_int((x[:, i] * rest_l2) / rest_xl).clip(-reach, reach - 1)
            new = rounded.astype(np.float32)
            new_xl, new_l2 = rest_xl + wx * new, rest_l2 + (w * new) * new
            grows = (new_xl * new_xl) * sum_l2 > (sum_xl * sum_xl) * new_l2
            better = (rest_xl > 0) & (rounded != quants[:, i]) & (new_l2 > 0) & grows
            quants[:, i] = np.where(better, rounded, quants[:, i])
            sum_xl, sum_l2 = np.where(better, new_xl, sum_xl), np.where(better, new_l2, sum_l2)

    nothing = np.abs(peak) < NOTHING
    scale = np.where((sum_l2 > 0) & ~nothing, sum_xl / sum_l2, np.float32(0))
    return scale, np.where(nothing[:, None], 0, quants + reach)


def affine_scale(x: np.ndarray, weights: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, negated min, float32 (m,), and quants, int32 (m, n): x is about scale * quant - min.

    ggml's `make_qkx2_quants` and, with other trials, `make_qkx3_quants`: a trial rounds the sub-block, solves the weighted least
    squares for scale and min given those quants (min at most 0), and is kept where the weighted error falls. The first trial divides
    the range evenly and keeps its ends. A sub-block of one value, zero or below, has scale 0 and quants 0.
    """
    sum_w, sum_x = running_sum(weights), running_sum(weights * x)
    low, high = (extreme[:, 0] for extreme in first_extremes(x))
    low = np.where(low > 0, np.float32(0), low)  # keeps -0, as ggml does

    def rounded(spread: np.float32) -> np.ndarray:
        return nearest_int((spread / (high - low))[:, None] * (x - low[:, None])).clip(0, search.largest)

    def error(scale: np.ndarray, low: np.ndarray, quants: np.ndarray) -> np.ndarray:
        off = (scale[:, None] * quants.astype(np.float32) + low[:, None]) - x
        return running_sum(weights * (np.abs(off) if search.absolute else off * off))

    scale = np.float32(1) / (np.float32(search.largest) / (high - low))
    quants = rounded(np.float32(search.largest))
    least = error(scale, low, quants)

    for spread in search.spreads():
        trial = rounded(spread)  # from the min of the best trial so far
        l = trial.astype(np.float32)
        wl = weights * l
        sum_l, sum_l2, sum_xl = running_sum(wl), running_sum(wl * l), running_sum(wl * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        trial_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = trial_low > 0
        trial_scale = np.where(above, sum_xl / sum_l2, trial_scale)
        trial_low = np.where(above, np.float32(0), trial_low)
        trial_error = error(trial_scale, trial_low, trial)
        better = (determinant > 0) & (trial_error < least)
        quants = np.where(better[:, None], trial, quants)
        least, scale, low = (np.where(better, new, old) for new, old in ((trial_error, least), (trial_scale, scale), (trial_low, low)))

    return scale, -low, quants  # a sub-block of one value, zero or below, has come out as scale 0 and quants 0 by itself


def positive_scale(x: np.ndarray, weights: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale, float32 (m,), and quants, uint8 (m, n), of numbers that are as a rule not negative; `largest` is the highest quant.

    ggml's `make_qp_quants`: of the spreads largest + k / 10, k = 0, then -4 .. 4, the one with the least sum(w (x - s l)**2), then one
    number after the other is rounded again under the least-squares scale of all others and kept where sum(w x l)**2 / sum(w l l) grows,
    up to five times. Without a number of 1e-15 scale and quants are 0. What is below zero wraps to a byte, as in ggml.
    """
    high = np.zeros(len(x), np.float32)
    for column in x.T:
        high = np.where(high > column, high, column)  # C's comparison: what follows a NaN is taken
    weighted = weights * x

    def error(inverse: np.ndarray, quants: np.ndarray) -> np.ndarray:
        off = x - (np.float32(1) / inverse)[:, None] * quants.astype(np.float32)
        return running_sum((weights * off) * off)

    inverse = np.float32(largest) / high
    least = error(inverse, nearest_int(inverse[:, None] * x) & 0xFF)
    for k in range(-4, 5):
        if k == 0:
            continue
        trial = (np.float32(0.1) * np.float32(k) + np.float32(largest)) / high
        trial_error = error(trial, np.minimum(nearest_int(trial[:, None] * x), largest))
        better = trial_error < least
        least, inverse = np.where(better, trial_error, least), np.where(better, trial, inverse)

    quants = np.minimum(nearest_int(inverse[:, None] * x), largest)
    l = quants.astype(np.float32)
    sum_xl, sum_l2 = running_sum(weighted * l), running_sum((weights * l) * l)
    quants &= 0xFF
    for _ in range(ROUNDS):
        for i in range(x.shape[1]):
            w, wx, old = weights[:, i], weighted[:, i], quants[:, i].astype(np.float32)
            rest_xl, rest_l2 = sum_xl - wx * old, sum_l2 - (w * old) * old
            rounded = np.minimum(nearest_int((x[:, i] * rest_l2) / rest_xl), largest)
            new = rounded.astype(np.float32)
            new_xl, new_l2 = rest_xl + wx * new, rest_l2 + (w * new) * new
            grows = (new_xl * new_xl) * sum_l2 > (sum_xl * sum_xl) * new_l2
            better = (rest_xl > 0) & (rest_l2 > 0) & (rounded != quants[:, i]) & grows
            quants[:, i] = np.where(better, rounded & 0xFF, quants[:, i])
            sum_xl, sum_l2 = np.where(better, new_xl, sum_xl), np.where(better, new_l2, sum_l2)

    nothing = high < NOTHING
    scale = np.where((sum_l2 > 0) & ~nothing, sum_xl / sum_l2, np.float32(0))
    return scale, np.where(nothing[:, None], 0, quants).astype(np.uint8)
