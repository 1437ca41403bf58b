"""How likely a model finds texts as continuations of a prompt: one pass for several of them, behind keys and values of the prompt."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ggpy.errors import ContextError, ModelError
from ggpy.evaluate.probabilities import SCORES, score
from ggpy.generate import BATCH, OUTPUT_ROWS, check_ids, check_memory, common_prefix
from ggpy.runtime.kv_cache import KVCache
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import Program, Segment

if TYPE_CHECKING:
    from ggpy.api import Model

SLOTS = 4  # continuations in one pass
MOST_AT_ONCE = 4  # prompts


@dataclass(frozen=True)
class Likelihood:
    """Of a continuation: the sum of its tokens' log-probabilities in nats, how many there are, and whether each was the most likely."""

    log_likelihood: float
    n_tokens: int
    is_greedy: bool


def encode_pair(model: Model, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a prompt, and those that its continuation adds: (n,) and (m,), neither empty.

    Spaces at the prompt's end go to the continuation, and both are encoded together, as the model has seen text (the convention of
    lm-eval). An empty prompt is the token a text begins with.
    """
    text = prompt.rstrip(" ")
    continuation = prompt[len(text) :] + continuation
    tokenizer = model.tokenizer
    start = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
    before = model.tokenize(text) if text else []
    rest = model.tokenize(text + continuation)[len(before) :] or model.tokenize(continuation)
    return [*start, *before] or model.start(), rest


class Continuations:
    """A model at work on prompts and their continuations. What prompts begin with in common is evaluated once. For one thread at a time.

    context: most tokens of a prompt with its continuation. ModelError if keys and values would not fit into the memory that is free.
    """

    def __init__(self, model: Model, context: int, threads: int):
        network = model.network
        check_memory(network, context, SLOTS + 1)
        self.context, self._network = context, network
        self._pool = ThreadPool(threads)
        self._cache = KVCache(network.shape, context, SLOTS + 1)
        self._batch = min(BATCH, context * (SLOTS + 1))
        self._program = Program(network.forward, self._cache, batch=self._batch, outputs=min(OUTPUT_ROWS, self._batch), pool=self._pool)
        self._ids: list[int] = []  # whose keys and values slot 0 holds

    def close(self) -> None:
        """End the helper threads."""
        self._pool.close()

    def likelihoods(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[Likelihood]:
        """Of each continuation behind the prompt. ContextError if the longest does not fit; ValueError for an id out of range."""
        longest = len(prompt) + max(len(tokens) for tokens in continuations)
        if longest > self.context + 1:  # the last token predicts nothing that is asked for
            raise ContextError(f"{longest} tokens do not fit the context of {self.context}")
        for tokens in (prompt, *continuations):
            check_ids(tokens, self._network, self.context)
        self._network.check_unchanged()
        self._hold(prompt[:-1])
        found: list[Likelihood] = []
        for first in range(0, len(continuations), SLOTS):
            group = [[prompt[-1], *tokens] for tokens in continuations[first : first + SLOTS]]
            parts = self._scores(group)
            if not all(np.isfinite(part["loss"]).all() for part in parts):
                raise ModelError(f"{self._network.name}: logits are not finite; {self._network.describe_fault()}")
            found += [Likelihood(-float(part["loss"].sum()), len(part), bool((part["choice"] == part["target"]).all())) for part in parts]
        return found

    def _hold(self, prompt: Sequence[int]) -> None:
        """Have the keys and values of these tokens in slot 0."""
        kept = common_prefix(self._ids, prompt)
        del self._ids[kept:]
        for first in range(kept, len(prompt), self._batch):
            part = prompt[first : first + self._batch]
            self._program.run(part, first, 0)
            self._ids.extend(part)

    def _scores(self, group: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """SCORES of every token but the first of each sequence, which all go on from slot 0."""
        position = len(self._ids)
        for slot in range(1, len(group) + 1):
            self._cache.copy(self._cache, 0, slot, position)
        parts: list[list[np.ndarray]] = [[np.zeros(0, SCORES)] for _ in group]
        for pieces in _passes([len(tokens) - 1 for tokens in group], self._batch):
            segments = [Segment(i + 1, group[i][first:last], position + first) for i, first, last in pieces]
            n_tokens = sum(last - first for _, first, last in pieces)
            logits = self._program.run_segments(segments, range(n_tokens))
            row = 0
            for i, first, last in pieces:
                rows = logits[row : row + last - first]
                parts[i].append(score(rows, group[i][first + 1 : last + 1], 0))
                row += last - first
        return [np.concatenate(part) for part in parts]


class Crew:
    """Several `Continuations` of one model at work at a time, each with a share of its threads. For any number of threads."""

    def __init__(self, model: Model, at_once: int | None = None):
        self.at_once = max(1, min(at_once or model.threads, MOST_AT_ONCE))
        self._members = [Continuations(model, model.context, max(1, model.threads // self.at_once)) for _ in range(self.at_once)]
        self._idle: queue.SimpleQueue[Continuations] = queue.SimpleQueue()
        for member in self._members:
            self._idle.put(member)

    def likelihoods(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[Likelihood]:
        """As of `Continuations`."""
        member = self._idle.get()
        try:
            return member.likelihoods(prompt, continuations)
        finally:
            self._idle.put(member)

    def close(self) -> None:
        """End the helper threads."""
        for member in self._members:
            member.close()


def _passes(lengths: Sequence[int], batch: int) -> Iterator[list[tuple[int, int, int]]]:
    """Which tokens to evaluate together, at most `batch` at a time: lists of (sequence, first, behind the last)."""
    pieces: list[tuple[int, int, int]] = []
    room = batch
    for i, length in enumerate(lengths):
        first = 0
        while first < length:
            last = min(length, first + room)
            pieces.append((i, first, last))
            room -= last - first
            first = last
            if not room:
                yield pieces
                pieces, room = [], batch
    if pieces:
        yield pieces
