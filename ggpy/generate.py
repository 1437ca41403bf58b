"""Prefill and decode: ids in, ids and logits out. A Generator is one sequence with its KV cache; text is not its business."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ggpy.errors import ContextError, GGPyError, ModelError
from ggpy.runtime.compiled import OnCompile
from ggpy.runtime.host import available_memory
from ggpy.runtime.kv_cache import CacheShape, KVCache
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import Forward, Program
from ggpy.sampling import Sampler

BATCH = 512  # tokens per pass of a prefill: each weight is unpacked once for all of them
OUTPUT_ROWS = 32  # rows of logits computed at a time when all are asked for


@dataclass
class Usage:
    """What the last prompt and its continuation took. cached_tokens: of the prompt, not evaluated again."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    generated_tokens: int = 0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class Network:
    """A model's graph with its weights bound: what a Generator runs. `describe_fault()` names the first weight that is not finite."""

    name: str
    forward: Forward
    shape: CacheShape
    n_vocab: int
    check_unchanged: Callable[[], None]
    describe_fault: Callable[[], str]


class Generator:
    """One sequence of tokens and its KV cache, for one thread at a time.

    context: most positions. ModelError if the cache would not fit into the memory that is free, with the largest context that does.
    """

    def __init__(self, network: Network, context: int, *, threads: int, batch: int = BATCH, on_compile: OnCompile | None = None):
        if context < 1 or threads < 1 or batch < 1:
            raise ValueError(f"context {context}, threads {threads} and batch {batch} must be at least 1")
        check_memory(network, context)
        self.network, self.context = network, context
        self.usage = Usage()
        self._pool = ThreadPool(threads)
        cache = KVCache(network.shape, context)
        batch = min(batch, context)
        self._program = Program(
            network.forward, cache, batch=batch, outputs=min(OUTPUT_ROWS, batch), pool=self._pool, on_compile=on_compile
        )
        self._ids: list[int] = []
        self._alone = Alone("Generator")

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens whose keys and values are in the cache."""
        return tuple(self._ids)

    @property
    def program(self) -> Program:
        """The recorded forward pass: its kernels and buffers, to be looked at."""
        return self._program

    def close(self) -> None:
        """End the helper threads; memory goes with the last reference."""
        self._pool.close()

    def rewind(self, count: int) -> None:
        """Forget all but the first `count` tokens."""
        if not 0 <= count <= len(self._ids):
            raise ValueError(f"rewind to {count}: the cache holds {len(self._ids)} tokens")
        with self._alone:
            del self._ids[count:]

    def shared_prefix(self, ids: Sequence[int]) -> int:
        """How many of the cached tokens `ids` begins with."""
        return common_prefix(self._ids, ids)

    def copy_prefix(self, source: Generator, ids: Sequence[int]) -> None:
        """Take over from another generator of the same network what its cache has of the beginning of `ids`, if that is more than is here.

        `source` may be at work in another thread: where its own beginning changes meanwhile, nothing is taken.
        """
        with self._alone:
            count = source.shared_prefix(ids)
            if count <= self.shared_prefix(ids) or count > self.context:
                return
            self._ids.clear()
            self._program.cache.copy(source._program.cache, 0, 0, count)
            if source.shared_prefix(ids) >= count:  # a generator forgets ids before it overwrites their keys and values
                self._ids.extend(int(i) for i in ids[:count])

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Make `ids` the sequence, evaluating only what differs from the cached one; logits after the last: float32 (n_vocab,).

        The array is overwritten by the next call. ValueError for no ids or one out of range; ContextError if they do not fit.
        """
        check_ids(ids, self.network, self.context)
        with self._alone:
            start = time.perf_counter()
            kept = min(self.shared_prefix(ids), len(ids) - 1)
            del self._ids[kept:]
            logits = self._evaluate(ids[kept:])
            self.usage = Usage(len(ids), kept, time.perf_counter() - start)
            return logits

    def decode(self, token: int) -> np.ndarray:
        """Append one token; logits after it: float32 (n_vocab,), overwritten by the next call."""
        if len(self._ids) >= self.context:
            raise ContextError(f"the context of {self.context} tokens is full")
        check_ids([token], self.network, self.context)
        with self._alone:
            start = time.perf_counter()
            logits = self._evaluate([token])
            self.usage.generated_tokens += 1
            self.usage.decode_seconds += time.perf_counter() - start
            return logits

    def logits(self, ids: Sequence[int], first: int = 0) -> np.ndarray:
        """Logits after the tokens of `ids` from `first` on, evaluated from an empty cache: a new float32 (len(ids) - first, n_vocab)."""
        result = np.empty((len(ids) - first, self.network.n_vocab), np.float32)
        for _ in self._batches(ids, first, lambda start, count: result[start - first : start - first + count]):
            pass
        return result

    def logits_by_batch(self, ids: Sequence[int], first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """The same in parts, so that memory does not grow with `ids`: (index in `ids`, float32 (n, n_vocab), overwritten by the next)."""
        buffer = np.empty((min(self._program.batch, len(ids) - first), self.network.n_vocab), np.float32)
        return self._batches(ids, first, lambda start, count: buffer[:count])

    def _batches(self, ids: Sequence[int], first: int, place: Callable[[int, int], np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Evaluate `ids` from an empty cache; logits from `first` on go where `place(index of the first, count)` says."""
        check_ids(ids, self.network, self.context)
        with self._alone:
            self._ids.clear()
            for start in range(0, len(ids), self._program.batch):
                part = ids[start : start + self._program.batch]
                wanted = max(0, min(len(part), start + len(part) - first))
                out = place(start + len(part) - wanted, wanted) if wanted else None
                self._program.run(part, start, wanted, out=out)
                self._ids.extend(int(i) for i in part)
                if out is not None:
                    self._check_finite(out)
                    yield start + len(part) - wanted, out

    def generate(self, ids: Sequence[int], sampler: Sampler, max_tokens: int | None = None) -> Iterator[int]:
        """Continue `ids`, yielding sampled ids until `max_tokens` or the context's end. Who iterates decides what ends a text."""
        logits = self.prefill(ids)
        history = list(ids)
        left = self.context - len(ids) if max_tokens is None else min(max_tokens, self.context - len(ids))
        while left > 0:
            token = sampler.pick(logits, history)
            history.append(token)
            yield token
            left -= 1
            if left > 0:
                logits = self.decode(token)

    def _evaluate(self, ids: Sequence[int]) -> np.ndarray:
        """Run `ids` behind the cached ones. Interrupted, the cache keeps the batches that were finished."""
        self.network.check_unchanged()
        batch = self._program.batch
        logits = np.empty((0, 0), np.float32)
        for first in range(0, len(ids), batch):
            part = ids[first : first + batch]
            logits = self._program.run(part, len(self._ids), 1 if first + len(part) == len(ids) else 0)
            self._ids.extend(int(i) for i in part)
        self._check_finite(logits)
        return logits[0]

    def _check_finite(self, logits: np.ndarray) -> None:
        if not np.isfinite(logits.sum(dtype=np.float64)):
            self._ids.clear()
            raise ModelError(f"{self.network.name}: logits are not finite; {self.network.describe_fault()}")


class Alone:
    """For one thread at a time: entering it while another thread is inside is a GGPyError that names `what`."""

    def __init__(self, what: str):
        self._what = what
        self._owner: dict[str, int] = {}  # the thread at work; no lock, which an interrupt between taking and trying would leave taken

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner.setdefault("thread", me) != me:
            raise GGPyError(f"this {self._what} is at work in another thread; give each thread one of its own")

    def __exit__(self, *exception: object) -> None:
        self._owner.clear()


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def check_ids(ids: Sequence[int], network: Network, context: int) -> None:
    """ValueError for no ids or one out of range, ContextError if they do not fit."""
    if not len(ids):
        raise ValueError("no tokens: at least one is needed to predict the next")
    for token in ids:
        if not 0 <= token < network.n_vocab:
            raise ValueError(f"token id {token} is out of range: the model has {network.n_vocab} tokens")
    if len(ids) > context:
        raise ContextError(f"{len(ids)} tokens do not fit the context of {context}")


def check_memory(network: Network, context: int, slots: int = 1) -> None:
    """ModelError if keys and values of so many tokens in each of `slots` sequences need more memory than is free."""
    free, per_position = available_memory(), slots * network.shape.bytes_per_position()
    if free is not None and context * per_position > free:
        raise ModelError(
            f"{network.name}: a context of {context} tokens needs {context * per_position / 1e6:.0f} MB for keys and values"
            f"{f' of {slots} sequences' if slots > 1 else ''}, {free / 1e6:.0f} MB are free; "
            f"the largest that fits is {free // per_position}"
        )


def slots_that_fit(network: Network, context: int) -> int:
    """How many sequences of `context` tokens find room in the memory that is free."""
    free = available_memory()
    return sys.maxsize if free is None else free // (context * network.shape.bytes_per_position())
