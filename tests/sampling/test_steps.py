"""The steps against slow twins over Python lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggpy.sampling.steps import draw, min_p, most_likely, penalize_repeats, softmax, temper, top_p, worth_sorting

# Few distinct values, so that ties are frequent.
LOGITS = st.lists(st.integers(-8, 8).map(lambda i: i / 2), min_size=1, max_size=300).map(lambda values: np.array(values, np.float32))


def by_likelihood(logits: np.ndarray) -> list[int]:
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


@settings(max_examples=100)
@given(LOGITS, st.integers(1, 400))
def test_most_likely_is_a_sort_cut_off(logits: np.ndarray, k: int) -> None:
    assert most_likely(logits, k).tolist() == by_likelihood(logits)[:k]


@pytest.mark.parametrize("k", [1, 40, 700, 781, 782, 50_000])
def test_most_likely_of_a_large_vocabulary(k: int) -> None:
    logits = np.random.default_rng(k).integers(-300, 300, 50_000).astype(np.float32)
    assert most_likely(logits, k).tolist() == by_likelihood(logits)[:k]


@settings(max_examples=100)
@given(LOGITS)
def test_softmax(logits: np.ndarray) -> None:
    weights = [math.exp(value) for value in logits.tolist()]
    np.testing.assert_allclose(softmax(logits), [w / sum(weights) for w in weights], rtol=1e-12)


def test_softmax_of_huge_logits() -> None:
    assert softmax(np.array([3e38, -3e38, 3e38], np.float32)).tolist() == [0.5, 0.0, 0.5]


@settings(max_examples=100)
@given(LOGITS, st.floats(0.01, 1.0))
def test_top_p_is_the_fewest_that_reach_p(logits: np.ndarray, p: float) -> None:
    probabilities = np.sort(softmax(logits))[::-1]
    n = top_p(probabilities, p)
    assert n == len(logits) or math.fsum(probabilities[:n]) >= p - 1e-12
    assert n == 1 or math.fsum(probabilities[: n - 1]) < p + 1e-12


@settings(max_examples=100)
@given(LOGITS, st.floats(0.0, 1.0))
def test_min_p_compares_with_the_first(logits: np.ndarray, p: float) -> None:
    probabilities = np.sort(softmax(logits))[::-1]
    assert min_p(probabilities, p) == sum(value >= p * probabilities[0] for value in probabilities)


@settings(max_examples=100)
@given(LOGITS, st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_what_is_not_worth_sorting_is_cut_off_anyway(logits: np.ndarray, p_top: float, p_min: float) -> None:
    probabilities = softmax(logits)
    ids = worth_sorting(probabilities, p_top, p_min)
    n = min(top_p(probabilities[ids], p_top), min_p(probabilities[ids], p_min))
    everything = np.argsort(-probabilities, kind="stable")
    n_all = min(top_p(probabilities[everything], p_top), min_p(probabilities[everything], p_min))
    if p_top < 1 or p_min > 0:
        assert ids[:n].tolist() == everything[:n_all].tolist()
    else:
        assert sorted(ids) == list(range(len(logits)))


@settings(max_examples=100)
@given(LOGITS, st.lists(st.integers(-5, 305), max_size=20), st.sampled_from([0.5, 1.0, 1.1, 2.0]))
def test_penalty(logits: np.ndarray, recent: list[int], penalty: float) -> None:
    before = logits.copy()
    expected = [
        float(np.float32((value / penalty if value > 0 else value * penalty) if i in recent else value))
        for i, value in enumerate(logits.tolist())
    ]
    assert penalize_repeats(logits, recent, penalty).tolist() == expected
    assert (logits == before).all()


@pytest.mark.parametrize("penalty", [1e-308, 5e-324, 1e308])
def test_a_penalty_never_makes_logits_infinite(penalty: float) -> None:
    penalized = penalize_repeats(np.array([5.0, -5.0, 0.0], np.float32), [0, 1, 2], penalty)
    assert np.isfinite(penalized).all()


def test_temper() -> None:
    logits = np.array([1.0, 3.0, 2.0], np.float32)
    assert temper(logits, 0.5).tolist() == [-4.0, 0.0, -2.0]
    assert softmax(temper(logits, 5e-324)).tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(softmax(temper(logits, 1e308)), [1 / 3] * 3)


def test_draw_inverts_the_running_sum() -> None:
    probabilities = np.array([0.25, 0.0, 0.5, 0.25])
    assert [draw(probabilities, u) for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, np.nextafter(1.0, 0.0))] == [0, 0, 2, 2, 3, 3]
    assert draw(np.array([1.0]), 0.999) == 0
