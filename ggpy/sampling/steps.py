"""The steps from logits to a choice: small pure functions, each from an array to an array.

`logits` are float (n_vocab,) and finite. Later steps see candidates only, the most likely first: what they cut off is a tail, so `top_p`
and `min_p` only say how many stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LARGEST = float(np.finfo(np.float32).max)
_BLOCK = 64


def penalize_repeats(logits: np.ndarray, recent: Sequence[int], penalty: float) -> np.ndarray:
    """Logits (n_vocab,) where each token in `recent` is less likely by `penalty`: positive logits are divided by it, others multiplied.

    From CTRL (arXiv 1909.05858), in the form all implementations took over: once per token, however often it occurs. A new array, unless
    there is nothing to do. ids outside the vocabulary are ignored.
    """
    ids = np.unique(np.asarray(recent, np.int64))
    ids = ids[(ids >= 0) & (ids < len(logits))]
    if penalty == 1.0 or not len(ids):
        return logits
    penalized = np.array(logits)
    chosen = penalized[ids].astype(np.float64)
    with np.errstate(over="ignore"):
        chosen = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    penalized[ids] = np.clip(chosen, -_LARGEST, _LARGEST)
    return penalized


def most_likely(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the `k` largest logits: int64 (min(k, n_vocab),), largest first, equal ones in order of id."""
    n_blocks = len(logits) // _BLOCK
    if 0 < k < n_blocks:
        # The k-th largest of the blocks' largest is a bound: k logits at least reach it. Sorting those few costs a tenth of a partition.
        largest = logits[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK).max(axis=1)
        ids = np.flatnonzero(logits >= np.partition(largest, n_blocks - k)[n_blocks - k])
    else:
        ids = np.arange(len(logits))
    return ids[np.argsort(-logits[ids], kind="stable")][:k]


def worth_sorting(probabilities: np.ndarray, p_top: float, p_min: float) -> np.ndarray:
    """The ids of all tokens that `top_p` and `min_p` may keep, the most likely first, of probabilities (n_vocab,): int64 (n,).

    Tokens below (1 - p_top) / n_vocab are together less than 1 - p_top: the sum reaches p_top before them.
    """
    floor = max((1.0 - p_top) / len(probabilities), p_min * float(probabilities.max()))
    if floor <= 0.0:
        return np.arange(len(probabilities))
    ids = np.flatnonzero(probabilities >= floor)
    return ids[np.argsort(-probabilities[ids], kind="stable")]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 (n,) of logits (n,), of which at least one must be finite."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return shifted / shifted.sum()


def top_p(probabilities: np.ndarray, p: float) -> int:
    """How many of the candidates make up probability `p`: the fewest whose sum reaches it, at least one. From arXiv 1904.09751."""
    if p >= 1.0:
        return len(probabilities)
    return min(int(np.searchsorted(np.cumsum(probabilities), p)) + 1, len(probabilities))


def min_p(probabilities: np.ndarray, p: float) -> int:
    """How many of the candidates are at least `p` times as likely as the first. From arXiv 2407.01082."""
    return max(int(np.count_nonzero(probabilities >= p * probabilities[0])), 1)


def temper(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Logits float64 (n,) divided by a temperature above 0, the largest brought to 0 so that nothing overflows."""
    with np.errstate(over="ignore"):
        return (logits.astype(np.float64) - float(logits.max())) / temperature


def draw(probabilities: np.ndarray, uniform: float) -> int:
    """The index at which the running sum of the probabilities (n,) passes `uniform`, a number from 0 to below 1."""
    running = np.cumsum(probabilities)
    return min(int(np.searchsorted(running, uniform * running[-1], side="right")), len(probabilities) - 1)
