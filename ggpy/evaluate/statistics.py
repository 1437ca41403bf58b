"""From scores of single predictions to figures with errors.

Predictions of one window are not independent: a text that surprises a model keeps doing so. Errors therefore come from how the windows
differ, not the tokens: the standard error of a mean over tokens is that of a ratio of two sums over windows (Cochran, Sampling Techniques,
6.4), and intervals hold 95 % of the figures that windows drawn with replacement give (Efron's percentile bootstrap). A single window has
only its tokens to go by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_COVERED = (0.025, 0.975)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Mean:
    """A mean over tokens. error: its standard error from windows; independent_error: as if tokens were independent, which llama-perplexity
    states; interval: 95 % of resampled means."""

    value: float
    error: float
    independent_error: float
    interval: Interval


def mean_of(parts: Sequence[np.ndarray]) -> Mean:
    """The mean of values (n,) given by window."""
    sums, counts = np.array([part.sum(dtype=np.float64) for part in parts]), np.array([len(part) for part in parts])
    values = np.concatenate(parts).astype(np.float64)
    value, n = float(values.mean()), len(parts)
    independent = standard_error(values)
    if n == 1:
        return Mean(value, independent, independent, (value - 1.96 * independent, value + 1.96 * independent))
    rest = sums - value * counts
    error = math.sqrt(float(np.square(rest).sum()) * n / (n - 1)) / values.size
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), _COVERED).tolist()
    return Mean(value, error, independent, (low, high))


def exponential(mean: Mean) -> Mean:
    """exp of a mean, its errors to first order: a perplexity from a mean loss."""
    value = math.exp(mean.value)
    return Mean(value, value * mean.error, value * mean.independent_error, (math.exp(mean.interval[0]), math.exp(mean.interval[1])))


def root(mean: Mean) -> Mean:
    """The square root of a mean of squares."""
    value = math.sqrt(mean.value)
    scale = 0.5 / value if value else 0.0
    low, high = (math.sqrt(max(0.0, bound)) for bound in mean.interval)
    return Mean(value, scale * mean.error, scale * mean.independent_error, (low, high))


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent `values`; 0 for a single value."""
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else 0.0
