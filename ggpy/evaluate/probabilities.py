"""From logits to what is known about each prediction: its loss and, beside those of a base, how far the two distributions lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

SCORES = np.dtype(
    [
        ("position", "<i4"),  # of the token that came, in the text's tokens
        ("target", "<i4"),  # the token that came
        ("loss", "<f8"),  # its negative log-likelihood in nats
        ("choice", "<i4"),  # the most likely token
        ("choice_loss", "<f4"),
        ("base_loss", "<f8"),  # the base's, likewise
        ("base_choice", "<i4"),
        ("base_choice_loss", "<f4"),
        ("divergence", "<f8"),  # KL(base || model) in nats
        ("rank", "<i4"),  # how many tokens the model finds more likely than the base's choice
    ]
)
"""What is kept of each prediction scored; without a base the fields of the last two lines and of the base are 0."""


class BaseRows(Protocol):
    """A base's predictions for one window, a row each."""

    @property
    def losses(self) -> np.ndarray:
        """float64 (n,): of the tokens that came."""
        ...

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities, probabilities), float32 (n_vocab,) each."""
        ...


def score(logits: np.ndarray, targets: Sequence[int], position: int, base: BaseRows | None = None, first: int = 0) -> np.ndarray:
    """SCORES (n,) of logits float32 (n, n_vocab), beside the rows of `base` from `first` on.

    Row by row, for a row fits the processor's cache.
    """
    found = np.zeros(len(logits), SCORES)
    found["position"] = np.arange(position, position + len(logits))
    found["target"] = targets
    log_probs, terms = np.empty((2, logits.shape[1]), np.float32)
    for index, row in enumerate(logits):
        one = found[index]
        choice = int(row.argmax())
        np.subtract(row, row[choice], out=log_probs)
        log_probs -= np.float32(np.log(np.exp(log_probs, out=terms).sum(dtype=np.float64)))
        one["loss"] = -float(log_probs[targets[index]])
        one["choice"], one["choice_loss"] = choice, -log_probs[choice]
        if base is None:
            continue
        base_log_probs, probs = base.row(first + index)
        base_choice = int(base_log_probs.argmax())
        np.subtract(base_log_probs, log_probs, out=terms)
        terms *= probs
        one["divergence"] = terms.sum(dtype=np.float64)
        one["base_loss"] = base.losses[first + index]
        one["base_choice"], one["base_choice_loss"] = base_choice, -base_log_probs[base_choice]
        one["rank"] = np.count_nonzero(log_probs > log_probs[base_choice])
    return found


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax over the last axis, float32; the sums are taken in float64."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def kl_divergence(base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL(base || other) at each position in nats: float64 (n,) from two sets of log-probabilities (n, n_vocab)."""
    return (np.exp(base) * (base - other)).sum(-1, dtype=np.float64)
