"""`tools/kl_against_llamacpp.py` compares stored predictions as it compares ggpy's."""

from __future__ import annotations

import kl_against_llamacpp
import numpy as np
import pytest

from ggpy.evaluate import kl_divergence, log_softmax


class Rows:
    def __init__(self, log_probs: np.ndarray):
        self.log_probs, self.losses = log_probs, np.zeros(len(log_probs))

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.log_probs[index], np.exp(self.log_probs[index])


def test_two_stored_predictions_are_compared():
    base, other = (log_softmax(np.random.default_rng(seed).normal(size=(5, 40)).astype(np.float32)) for seed in (0, 1))
    other[2] = base[2]
    found = kl_against_llamacpp.between(Rows(base), Rows(other), 5)
    assert found.divergence == pytest.approx(kl_divergence(base, other), rel=1e-4, abs=1e-6)
    assert found.divergence[2] == 0 and found.agreement[2]
    assert found.agreement.tolist() == (base.argmax(1) == other.argmax(1)).tolist()
