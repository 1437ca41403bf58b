"""Errors and intervals hold what they promise: measured on values whose windows are alike inside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ggpy.evaluate.statistics import exponential, mean_of, root, standard_error

WINDOWS, PER_WINDOW = 40, 25


def draw(rng: np.random.Generator, between: float) -> list[np.ndarray]:
    """Values with mean 1 whose windows differ by `between`, beside noise of 1 for each value."""
    return [1 + between * rng.normal() + rng.normal(size=PER_WINDOW) for _ in range(WINDOWS)]


@pytest.mark.parametrize("between", [0.0, 1.0])
def test_errors_are_the_spread_of_repeated_measurements(between: float):
    rng = np.random.default_rng(1)
    means = [mean_of(draw(rng, between)) for _ in range(100)]
    spread = np.std([mean.value for mean in means])
    assert np.mean([mean.error for mean in means]) == pytest.approx(spread, rel=0.2)
    covered = np.mean([mean.interval[0] <= 1 <= mean.interval[1] for mean in means])
    assert 0.86 <= covered <= 0.99
    if between:
        assert np.mean([mean.independent_error for mean in means]) < 0.4 * spread


def test_windows_of_unequal_length_count_by_their_tokens():
    parts = [np.array([1.0, 2.0, 3.0]), np.array([10.0])]
    mean = mean_of(parts)
    assert mean.value == 4
    rest = np.array([6 - 3 * 4, 10 - 4])
    assert mean.error == pytest.approx(math.sqrt((rest**2).sum() * 2) / 4)
    assert mean.independent_error == pytest.approx(np.std([1, 2, 3, 10], ddof=1) / 2)


def test_a_single_window_has_only_its_tokens_to_go_by():
    mean = mean_of([np.arange(10.0)])
    assert mean.error == mean.independent_error == standard_error(np.arange(10.0)) == pytest.approx(0.9574, rel=1e-4)
    assert mean_of([np.array([3.0])]).error == 0


def test_errors_follow_an_exponential_and_a_root():
    mean = mean_of([np.array([0.5, 0.7]), np.array([0.6, 0.9])])
    above = exponential(mean)
    assert (above.value, above.error) == pytest.approx((math.exp(mean.value), math.exp(mean.value) * mean.error))
    below = root(mean)
    assert (below.value, below.error) == pytest.approx((math.sqrt(mean.value), mean.error / (2 * math.sqrt(mean.value))))
    assert root(mean_of([np.zeros(2)])).error == 0
