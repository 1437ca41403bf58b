"""The two limits of this machine that inference runs into, measured: how fast memory is read, how fast int8 values are multiplied.

Decoding reads every weight once per token; prefill multiplies every weight by every token. Speed is reported as a share of these limits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import run_kernel

RESULT_BYTES = 64  # per thread
OPERAND_BYTES = 4096


def read_rate(ranges: Sequence[np.ndarray], threads: int, *, seconds: float = 0.5) -> float:
    """Bytes per second at which `threads` threads read all of `ranges`: the best of the passes that fit into `seconds`, two at least.

    ranges: contiguous arrays, such as the mapped weights of a model; each thread reads its share of each.
    """
    results = np.zeros((threads, RESULT_BYTES), np.uint8)
    places = [word for values in ranges for word in (values.ctypes.data, values.nbytes)]
    words = np.array([results.ctypes.data, len(ranges), *places], np.int64)
    read = kernel("limits", "read")
    return sum(values.nbytes for values in ranges) / _best_time(lambda: run_kernel(read, words, threads), seconds)


def multiply_rate(threads: int, *, seconds: float = 0.5) -> float:
    """Operations (a multiplication or an addition each) per second of the int8 dot product, operands in the first-level cache."""
    results = np.zeros((threads, RESULT_BYTES // 8), np.int64)
    operands = np.random.default_rng(0).integers(0, 128, OPERAND_BYTES, dtype=np.uint8)
    words = np.array([results.ctypes.data, operands.ctypes.data, 100_000], np.int64)
    multiply = kernel("limits", "multiply")
    best = _best_time(lambda: run_kernel(multiply, words, threads), seconds)
    return int(results[:, 1].sum()) / best


def _best_time(run, seconds: float) -> float:
    """Seconds of the fastest run among those that fit into `seconds`; two at least."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
