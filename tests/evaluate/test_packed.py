"""What is kept of a base's predictions gives the same figures as the predictions themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggpy.evaluate import kl_divergence, log_softmax
from ggpy.evaluate.packed import PackedRows, losses_of, n_bytes
from ggpy.evaluate.probabilities import score

N, N_VOCAB = 40, 5000


def logits(seed: int) -> np.ndarray:
    """Rows from flat to sharp, as a model's are."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, (N, N_VOCAB)) * np.linspace(0.5, 6, N)[:, None]).astype(np.float32)


def packed(rows: np.ndarray, targets: np.ndarray) -> PackedRows:
    kept = PackedRows.empty(*rows.shape)
    kept.put(0, rows[:15], losses_of(rows[:15], targets[:15]))
    kept.put(15, rows[15:], losses_of(rows[15:], targets[15:]))
    return kept


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.3])
def test_divergences_are_those_of_the_rows_themselves(noise: float):
    base, targets = logits(1), np.random.default_rng(2).integers(0, N_VOCAB, N)
    other = base + np.random.default_rng(3).normal(0, noise, base.shape).astype(np.float32)
    exact = kl_divergence(log_softmax(base).astype(np.float64), log_softmax(other).astype(np.float64))
    found = score(other, targets.tolist(), 0, packed(base, targets))
    assert found["divergence"].mean() == pytest.approx(exact.mean(), rel=1e-3, abs=3e-8)
    np.testing.assert_allclose(found["divergence"], exact, rtol=0.05, atol=1e-6)
    np.testing.assert_allclose(found["base_loss"], -log_softmax(base)[np.arange(N), targets], rtol=1e-6)
    assert (found["base_choice"] == base.argmax(-1)).all() and (found["choice"] == other.argmax(-1)).all()
    ranks = [(other[i] > other[i, base[i].argmax()]).sum() for i in range(N)]
    assert (found["rank"] == ranks).all()


def test_nothing_is_cut_off_and_rows_sum_to_one():
    row = np.zeros((1, N_VOCAB), np.float32)
    row[0, 0], row[0, 1] = 30, -60
    log_probs, probs = packed(np.repeat(row, N, 0), np.zeros(N, int)).row(0)
    np.testing.assert_allclose(log_probs[:3], log_softmax(row)[0, :3], rtol=1e-4, atol=1e-6)
    assert probs.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_a_row_without_any_difference_is_uniform():
    log_probs, _ = packed(np.full((N, N_VOCAB), 3, np.float32), np.zeros(N, int)).row(5)
    np.testing.assert_allclose(log_probs, -np.log(N_VOCAB), rtol=1e-6)


@given(st.integers(0, 200))
def test_bytes_of_another_size_are_refused(cut: int):
    kept = PackedRows.empty(2, 5)
    kept.put(0, logits(1)[:2, :5], np.array([1.0, 2.0]))
    content = kept.to_bytes()
    assert len(content) == n_bytes(2, 5)
    again = PackedRows.from_bytes(content, 2, 5)
    assert again is not None and again.to_bytes() == content
    assert (PackedRows.from_bytes(content[:cut], 2, 5) is None) == (cut < len(content))
