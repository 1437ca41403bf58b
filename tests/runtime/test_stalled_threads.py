"""A thread that the machine stops delays no walk, whether it holds nothing or a piece of a product, and does no harm when it goes on."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ggpy.kernels.desks import AWAY, DESK_BYTES, HELP, HOLDING, INSIDE, LOOKING, MEET, OP_SHIFT, STALLED, STATE
from ggpy.kernels.segments import partial_bytes, scratch_bytes
from ggpy.runtime.compiled import kernel
from ggpy.runtime.kv_cache import CacheShape, KVCache
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import TAPE_WORDS

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_ssize_t)
LONG = 20.0  # seconds that a test waits before it fails
UNIT_BITS = 28  # of a counter: above them, the walk

ROWS, K = 300, 64


class Chain:
    """A tape that takes a vector through `steps` products with matrices of its own, and the result by NumPy.

    Small integers, so that float32 sums are exact in any order.
    """

    def __init__(self, pool: ThreadPool, steps: int, seed: int = 0, tokens: int = 4):
        rng = np.random.default_rng(seed)
        self.pool, self.tokens = pool, tokens
        self.count = np.array([1])
        self.weights = [
            rng.integers(-1, 2, (ROWS if i % 2 == 0 else K, K if i % 2 == 0 else ROWS)).astype(np.float32) for i in range(steps)
        ]
        self.values = [np.zeros((tokens, K), np.float32)] + [np.zeros((tokens, len(w)), np.float32) for w in self.weights]
        self.counters = np.zeros((steps, 8), np.int64)
        self.scratch = np.zeros((pool.threads, 1 << 15), np.uint8)
        self.tape = np.zeros((steps, TAPE_WORDS), np.int64)
        for i, weights in enumerate(self.weights):
            rows, k = weights.shape
            x, y = self.values[i].ctypes.data, self.values[i + 1].ctypes.data
            words = (kernel("f32", "linear"), MEET | HELP, weights.ctypes.data, 4 * k, rows, k, x, y, 4 * rows, self.count.ctypes.data,
                     self.counters[i].ctypes.data, self.scratch.ctypes.data, self.scratch.shape[1], 0, 0, pool.desks)  # fmt: skip
            self.tape[i, : len(words)] = words

    def walk(self, x: np.ndarray, steps: int | None = None) -> bool:
        """Whether the walk over the first `steps` gives for x (tokens, K) what NumPy gives."""
        steps = len(self.tape) if steps is None else steps
        self.count[0] = len(x)
        for value in self.values:
            value.fill(np.nan)
        self.values[0][: len(x)] = x
        self.pool.walk(self.tape, steps)
        want = x.astype(np.float64)
        for weights in self.weights[:steps]:
            want = want @ weights.T
        return np.array_equal(self.values[steps][: len(x)], want)

    def inputs(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.integers(-1, 2, (1 + seed % self.tokens, K)).astype(np.float32)

    def first_piece(self, op: int) -> int:
        """Units of the first claim: pairs of rows."""
        rows, k = self.weights[op].shape
        size = max(max(4, (12 << 10) // (4 * k)) // 2, min(512 // int(self.count[0]), rows // 2 // (2 * self.pool.threads - 1)))
        assert size < rows // 2
        return size


class Attention:
    """A tape of one attention: `tokens` at a position of a cache of random values."""

    HEADS, SHAPE, POSITIONS = 6, CacheShape(1, 2, 32), 1200

    def __init__(self, pool: ThreadPool, position: int, tokens: int):
        rng = np.random.default_rng(0)
        self.pool, shape = pool, self.SHAPE
        self.cache = KVCache(shape, self.POSITIONS)
        for part in (self.cache.keys[0], self.cache.values[0]):
            part[:] = rng.standard_normal(part.shape)
        self.queries = rng.standard_normal((tokens, self.HEADS * shape.head_dim)).astype(np.float32)
        self.out, self.n_segments = np.zeros_like(self.queries), np.array([1])
        self.segments, self.arrivals = np.array([0, 0, tokens, position]), np.zeros((1, 2), np.int64)
        self.partials = np.zeros(partial_bytes(self.HEADS, shape.head_dim, self.POSITIONS), np.uint8)
        self.scratch = np.zeros((pool.threads, scratch_bytes(3, shape.head_dim)), np.uint8)
        self.counters, self.tape = np.zeros((1, 8), np.int64), np.zeros((1, TAPE_WORDS), np.int64)
        arrays = (self.n_segments, self.segments, self.counters)
        words = (kernel("attention", "attention"), MEET | HELP, self.queries.ctypes.data, self.out.ctypes.data, self.HEADS, 2,
                 shape.head_dim, self.cache.keys[0].ctypes.data, self.cache.values[0].ctypes.data, self.cache.positions,
                 *(array.ctypes.data for array in arrays), int(np.float32(0.2).view(np.uint32)), self.scratch.ctypes.data,
                 self.scratch.shape[1], self.partials.ctypes.data, self.arrivals.ctypes.data, pool.desks, 0, 0)  # fmt: skip
        self.tape[0, : len(words)] = words
        alone = np.array([*words[2:-3], 0, 0, 0])
        ENTRY(words[0])(alone.ctypes.data, 0, 1)
        self.want = self.out.copy()
        assert np.isfinite(self.want).all() and self.want.any()
        self.counters.fill(0)

    def inputs(self, seed: int) -> np.ndarray:
        return self.queries

    def first_piece(self, op: int) -> int:
        return 1

    def walk(self, x: np.ndarray) -> bool:
        self.out.fill(np.nan)
        self.pool.walk(self.tape)
        return np.array_equal(self.out, self.want) and not self.arrivals.any()


Stop = Callable[["Chain | Attention", int, int], None]


@contextmanager
def stopped(chain: Chain | Attention, op: int, how: Stop) -> Iterator[threading.Event]:
    """A helper is stopped at `op` in a way of its own, once, within a walk that is done; until the event is set."""
    reached, go_on, waited_for = threading.Event(), threading.Event(), []
    real = ENTRY(int(chain.tape[op, 0]))
    before = int(chain.tape[op, 0])

    def entry(args: int, ith: int, crew: int) -> None:
        if ith and not reached.is_set():
            how(chain, op, ith)
            reached.set()
            if not go_on.wait(LONG):
                waited_for.append(op)
                chain.counters[op] = int(chain.counters[op, 0]) >> UNIT_BITS << UNIT_BITS  # give the piece back, so that the walk can end
            desk = desk_of(chain.pool, ith)
            desk[0] = (int(desk[0]) >> OP_SHIFT << OP_SHIFT) + LOOKING
        elif ith == 0 and not desk_of(chain.pool, 0)[STALLED // 8]:
            assert reached.wait(LONG)
        real(args, ith, crew)

    stop = ENTRY(entry)
    chain.tape[op, 0] = ctypes.cast(stop, ctypes.c_void_p).value
    try:
        assert chain.walk(chain.inputs(1)) and not waited_for
        chain.tape[op, 0] = before
        yield go_on
    finally:
        go_on.set()
        chain.pool.settle()
    assert stop


def desk_of(pool: ThreadPool, ith: int) -> np.ndarray:
    words = (ctypes.c_int64 * (DESK_BYTES // 8)).from_address(pool.desks + ith * DESK_BYTES)
    return np.frombuffer(words, np.int64)


def empty_handed(chain: Chain | Attention, op: int, ith: int) -> None:
    """It has claimed nothing."""
    desk_of(chain.pool, ith)[0] += AWAY - LOOKING


def with_a_piece(chain: Chain | Attention, op: int, ith: int) -> None:
    """It has claimed the first piece there is, as the kernel does."""
    walk = chain.pool.walks
    assert chain.counters[op, 0] >> UNIT_BITS < walk, "somebody claimed before"
    chain.counters[op, 0] = (walk << UNIT_BITS) + chain.first_piece(op)
    desk_of(chain.pool, ith)[0] += HOLDING - LOOKING


@pytest.mark.parametrize("how", [empty_handed, with_a_piece])
@pytest.mark.parametrize("threads", [2, 4])
def test_a_stopped_thread_delays_no_walk_and_does_no_harm_later(how: Stop, threads: int):
    pool = ThreadPool(threads)
    chain = Chain(pool, 6)
    for op in (0, 3, 5):
        with stopped(chain, op, how) as go_on:
            assert any(desk_of(pool, ith)[INSIDE // 8] for ith in range(1, threads))
            for i in range(50):
                assert chain.walk(chain.inputs(i), steps=1 + i % 6)
            go_on.set()
            for i in range(200):
                assert chain.walk(chain.inputs(i), steps=1 + i % 6)
        assert all(desk_of(pool, ith)[0] & STATE == AWAY for ith in range(threads))
    pool.close()


@pytest.mark.parametrize(("position", "tokens"), [(40, 1), (1100, 1), (700, 20)])
def test_attention_that_a_stopped_thread_holds_is_done_over(position: int, tokens: int):
    pool = ThreadPool(2)
    attention = Attention(pool, position, tokens)
    with stopped(attention, 0, with_a_piece) as go_on:
        assert all(attention.walk(attention.queries) for _ in range(20))
        go_on.set()
        assert all(attention.walk(attention.queries) for _ in range(50))
    pool.close()


def test_nothing_is_left_for_who_comes_late_to_a_batch_that_grew():
    """The next batch is entered while a thread is still in an op of the last walk, whose units were claimed."""
    a, out, count, counter = np.ones((4, 64), np.float32), np.zeros((4, 64), np.float32), np.array([1]), np.zeros(1, np.int64)
    words = np.array([x.ctypes.data for x in (a, a, out)] + [64, count.ctypes.data, counter.ctypes.data])
    add = ENTRY(kernel("pointwise", "add"))
    walk = 5 << 28
    add(words.ctypes.data, 0, walk + 2)
    assert (out[0] == 2).all()
    out.fill(0)
    count[0] = 4
    add(words.ctypes.data, 1, walk + 2)
    assert not out.any()
    add(words.ctypes.data, 0, (6 << 28) + 2)
    assert (out == 2).all()


def test_settle_waits_for_whoever_still_reads():
    pool = ThreadPool(2)
    chain = Chain(pool, 3)
    with stopped(chain, 1, empty_handed) as go_on:
        settled = threading.Event()
        waiting = threading.Thread(target=lambda: (pool.settle(), settled.set()))
        waiting.start()
        assert not settled.wait(0.2)
        go_on.set()
        assert settled.wait(LONG)
        waiting.join()
    pool.close()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_many_short_walks(threads: int):
    """Of changing length and number of tokens, back to back and with pauses in which helpers fall asleep."""
    pool = ThreadPool(threads)
    chains = [Chain(pool, steps, seed=steps) for steps in (1, 2, 6)]
    for i in range(600):
        assert chains[i % 3].walk(chains[i % 3].inputs(i), steps=None if i % 5 else 1)
        if i % 50 == 0:
            time.sleep(0.002)
    pool.close()


def test_idle_helpers_take_no_processor_time():
    pool = ThreadPool(3)
    chain = Chain(pool, 3)
    assert chain.walk(chain.inputs(1))
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    assert chain.walk(chain.inputs(2))
    pool.close()


FORKED = """
import os, sys
from tests.runtime.test_stalled_threads import Chain
from ggpy.runtime.parallel import ThreadPool
pool = ThreadPool(3)
chain = Chain(pool, 4)
assert all(chain.walk(chain.inputs(i)) for i in range(20))
child = os.fork()
right = all(chain.walk(chain.inputs(i)) for i in range(20))
pool.close()
if child:
    right = os.waitpid(child, 0)[1] == 0 and right
os._exit(0 if right else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_walks_alone():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False)
    assert run.returncode == 0, run.stderr
