"""Models at work on windows, several at a time: each worker has a sequence of its own and a share of the threads."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ggpy.evaluate.packed import PackedRows, losses_of
from ggpy.evaluate.probabilities import BaseRows, score
from ggpy.evaluate.windows import Window

if TYPE_CHECKING:
    from ggpy.api import Model
    from ggpy.generate import Generator


class Predictor:
    """A model's predictions for windows of at most `longest` tokens, for up to `at_once` workers."""

    def __init__(self, model: Model, longest: int, at_once: int):
        self.model, self.path, self.n_vocab = model, str(model.path), model.tokenizer.n_vocab
        self._idle: queue.SimpleQueue[Generator] = queue.SimpleQueue()
        threads = max(1, model.threads // at_once)
        self._generators = [model.generator(longest, threads) for _ in range(at_once)]
        for generator in self._generators:
            self._idle.put(generator)

    def close(self) -> None:
        """End the workers' threads."""
        for generator in self._generators:
            generator.close()

    @contextmanager
    def logits(self, window: Window) -> Iterator[Iterator[tuple[int, np.ndarray]]]:
        """The logits of what a window scores, in parts: (number of the first, float32 (n, n_vocab))."""
        generator = self._idle.get()
        try:
            yield ((start - window.first, rows) for start, rows in generator.logits_by_batch(window.ids, window.first))
        finally:
            self._idle.put(generator)

    def score(self, window: Window, base: BaseRows | None) -> np.ndarray:
        """SCORES (n,) of a window's predictions, beside the base's where there is one."""
        with self.logits(window) as parts:
            found = [score(rows, window.targets[start : start + len(rows)], window.position + start, base, start) for start, rows in parts]
        return np.concatenate(found)

    def pack(self, window: Window) -> PackedRows:
        """All predictions that a window scores, packed."""
        packed, targets = PackedRows.empty(len(window.targets), self.n_vocab), np.asarray(window.targets)
        with self.logits(window) as parts:
            for start, rows in parts:
                packed.put(start, rows, losses_of(rows, targets[start : start + len(rows)]))
        return packed
