"""The two limits of this machine that inference runs into, measured: how fast memory is read, how fast values are multiplied.

Decoding reads every weight once per token; prefill multiplies every weight by every token. Speed is reported as a share of these limits.
A pass takes tens of milliseconds, so that passes can take turns with what is compared with them: both then meet the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ggpy.kernels.kinds import BF16_FROM
from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import run_kernel
from ggpy.simd.target import target

RESULT_BYTES = 64  # per thread
OPERAND_BYTES = 4096
CHUNK_BYTES = 1 << 18  # that a thread reads at a time
PASS_BYTES = 1 << 29  # that a pass reads at least, the same again and again: starting a thread takes 0.05 ms
PASS_ROUNDS = 1 << 22  # of eight dot products, per thread
TILE_OPERAND_BYTES = 1 << 19  # per thread: past the first-level cache, well inside the second
TILE_PASSES = 2048  # per thread, over these: some 20 ms

Clock = Callable[[], float]
"""Seconds: those on the wall, or those that a thread had a processor for."""


class Pass:
    """A kernel of `ggpy/kernels/limits.py` on `threads` threads.

    Its words: address of the threads' results, `before`, address of the counter that threads take work from, `after`. held: arrays that
    the words point to.
    """

    def __init__(self, name: str, threads: int, before: Sequence[int], after: Sequence[int], held: Sequence[np.ndarray]):
        self._kernel, self._threads, self._held = kernel("limits", name), threads, tuple(held)
        self._results, self._counter = np.zeros((threads, RESULT_BYTES // 8), np.int64), np.zeros(1, np.int64)
        self._words = np.array([self._results.ctypes.data, *before, self._counter.ctypes.data, *after], np.int64)

    def __call__(self, clock: Clock = time.perf_counter) -> float:
        """Measure once: bytes or operations per second of `clock`, which for one thread may be time.thread_time."""
        self._counter[0] = 0
        start = clock()
        run_kernel(self._kernel, self._words, self._threads)
        return int(self._results[:, 1].sum()) / (clock() - start)

    def best(self, seconds: float = 0.5, clock: Clock = time.perf_counter) -> float:
        """The highest rate of the passes that fit into `seconds`, two at least."""
        rates, end = [], time.perf_counter() + seconds
        while len(rates) < 2 or time.perf_counter() < end:
            rates.append(self(clock))
        return max(rates)


def read_pass(ranges: Sequence[np.ndarray], threads: int, *, n_bytes: int = PASS_BYTES) -> Pass:
    """A pass that reads all of `ranges`, as often as it takes to read `n_bytes`: bytes per second.

    ranges: contiguous arrays, such as the mapped weights of a model.
    """
    once = [
        (values.ctypes.data + start, min(CHUNK_BYTES, values.nbytes - start))
        for values in ranges
        for start in range(0, values.nbytes, CHUNK_BYTES)
    ]
    chunks = once * max(1, -(-n_bytes // sum(size for _, size in once)))
    return Pass("read", threads, (len(chunks),), [word for chunk in chunks for word in chunk], ranges)


def multiply_pass(threads: int, *, rounds: int = PASS_ROUNDS) -> Pass:
    """A pass of int8 dot products, operands in the first-level cache: operations (a multiplication or an addition each) per second."""
    operands = np.random.default_rng(0).integers(0, 128, OPERAND_BYTES, dtype=np.uint8)
    return Pass("multiply", threads, (operands.ctypes.data, rounds * threads), (), (operands,))


def multiply_tiles_pass(threads: int, *, passes: int = TILE_PASSES) -> Pass:
    """A pass of AMX products of random bfloat16 from the second-level cache: operations per second. Only for a target with `amx`."""
    values = np.random.default_rng(0).standard_normal((threads, (TILE_OPERAND_BYTES + 4096) // 2), np.float32)
    raw = np.zeros(values.size * 2 + 64, np.uint8)
    operands = raw[-raw.ctypes.data % 64 :][: values.size * 2]
    operands.view(np.uint16)[:] = values.reshape(-1).view(np.uint32) >> 16
    return Pass("multiply_tiles", threads, (operands.ctypes.data, TILE_OPERAND_BYTES, passes * threads), (), (operands,))


def product_pass(threads: int, tokens: int) -> Pass:
    """The pass that limits products of so many tokens: of tiles where they are taken, else of int8."""
    return multiply_tiles_pass(threads) if target().amx and tokens >= BF16_FROM else multiply_pass(threads)
