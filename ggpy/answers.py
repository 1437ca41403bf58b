"""From logits to the steps of a stream: the token drawn, its text, and why the text ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ggpy.sampling import Sampler
from ggpy.stop_texts import StopTexts
from ggpy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Step:
    """One generated token. text: the characters that are whole with it, often none; finish: why this is the last one, else None:
    "stop" (the model ended its text), "length" (max_tokens) or "context" (no room left)."""

    token: int
    text: str
    finish: str | None = None


class Answer:
    """What continues one prompt. ids: the prompt; room: most tokens that fit behind it; max_tokens: most that are wanted, or None."""

    def __init__(
        self, tokenizer: Tokenizer, ids: Sequence[int], sampler: Sampler, stop: StopTexts, room: int, max_tokens: int | None = None
    ):
        self.ids = list(ids)
        self._history = list(ids)
        self._end_ids, self._decoder = tokenizer.end_ids, tokenizer.stream()
        self._sampler, self._stop = sampler, stop
        self.left = room if max_tokens is None else min(max_tokens, room)
        self._exhausted = "length" if max_tokens is not None and max_tokens <= room else "context"

    def next(self, logits: np.ndarray) -> Step:
        """The step that logits float32 (n_vocab,) lead to. There is none after a step with a `finish`, nor where `left` is 0."""
        token = self._sampler.pick(logits, self._history)
        self._history.append(token)
        self.left -= 1
        if token in self._end_ids:
            return Step(token, self._stop.release() + self._decoder.flush(), "stop")
        text = self._decoder.feed(token)
        if not self.left:
            text += self._decoder.flush()
        text, found = self._stop.feed(text)
        if found:
            return Step(token, text, "stop")
        return Step(token, text) if self.left else Step(token, text + self._stop.release(), self._exhausted)
