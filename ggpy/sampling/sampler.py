"""The sampler: the steps in the order in which llama.cpp has them, with settings that are checked once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np

from ggpy.errors import GGPyError, printable
from ggpy.sampling.steps import draw, min_p, most_likely, penalize_repeats, softmax, temper, top_p, worth_sorting


@dataclass(frozen=True)
class Sampler:
    """Chooses a token from logits.

    temperature: 0 takes the most likely token; above, logits are divided by it before the draw.
    top_k: only the k most likely tokens; 0: all. top_p: only the most likely ones that together reach p; 1: all.
    min_p: only those at least p times as likely as the most likely; 0: all.
    repeat_penalty: how much less likely a token is that occurs among the last `repeat_last_n` (-1: all); 1: no less.
    seed: the same seed gives the same choices, on any machine; None: a new one each time.

    Order: penalty, top_k, top_p, min_p, temperature. A sampler keeps the state of its random numbers, so each text needs its own.
    Raises GGPyError for settings out of range.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, "0 or more", lambda x: x >= 0)
        _check_integer("top_k", self.top_k, 0, 2**31 - 1)
        _check_number("top_p", self.top_p, "above 0 and at most 1", lambda x: 0 < x <= 1)
        _check_number("min_p", self.min_p, "from 0 to 1", lambda x: 0 <= x <= 1)
        _check_number("repeat_penalty", self.repeat_penalty, "above 0", lambda x: x > 0)
        _check_integer("repeat_last_n", self.repeat_last_n, -1, 2**31 - 1)
        if self.seed is not None:
            _check_integer("seed", self.seed, 0, 2**64 - 1)
        object.__setattr__(self, "_random", random.Random(None if self.seed is None else int(self.seed)))  # Mersenne Twister

    def pick(self, logits: np.ndarray, history: Sequence[int] = ()) -> int:
        """The next token for logits float32 (n_vocab,) after the tokens `history`. Raises GGPyError for logits that are not all finite."""
        _check_logits(logits)
        if self.repeat_penalty != 1.0 and self.repeat_last_n != 0:
            recent = history if self.repeat_last_n < 0 else history[-self.repeat_last_n :]
            logits = penalize_repeats(logits, recent, self.repeat_penalty)
        if self.temperature == 0 or self.top_k == 1:
            return int(logits.argmax())
        ids, probabilities = self._candidates(logits)
        ids = ids[: min(top_p(probabilities, self.top_p), min_p(probabilities, self.min_p))]
        return int(ids[draw(softmax(temper(logits[ids], self.temperature)), self._random.random())])

    def _candidates(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (n,) and their probabilities (n,) after top_k, the most likely first."""
        if self.top_k:
            ids = most_likely(logits, self.top_k)
            return ids, softmax(logits[ids])
        probabilities = softmax(logits)
        ids = worth_sorting(probabilities, self.top_p, self.min_p)
        return ids, probabilities[ids]


def _check_logits(logits: np.ndarray) -> None:
    finite = np.isfinite(logits)
    if logits.ndim != 1 or not len(logits):
        raise GGPyError(f"logits have shape {list(logits.shape)}; expected one for each token")
    if not finite.all():
        i = int(np.argmin(finite))
        raise GGPyError(
            f"{int((~finite).sum())} of {len(logits)} logits are not finite (first: {logits[i]} for token {i}): the model's weights or its "
            "activations are damaged"
        )


def _check_number(name: str, value: object, expected: str, fits: Callable[[float], bool]) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or not fits(float(value)):
        raise GGPyError(f"{name} is {printable(value, 40)}; expected a number {expected}")


def _check_integer(name: str, value: object, minimum: int, maximum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not minimum <= int(value) <= maximum:
        raise GGPyError(f"{name} is {printable(value, 40)}; expected a whole number from {minimum} to {maximum}")
