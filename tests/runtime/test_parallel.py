"""Threads on a tape: everyone meets where the tape says so, as often as asked, from several Python threads."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ggpy.runtime.compiled import kernel
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import TAPE_WORDS


def sums(length: int, steps: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """A tape of steps that each add 1 to a vector: wrong unless every step waits for the one before."""
    arrays = [np.zeros(length, np.float32) for _ in range(steps + 1)]
    ones, count, counters = np.ones(length, np.float32), np.array([1]), np.zeros((steps, 8), np.int64)
    tape = np.zeros((steps, TAPE_WORDS), np.int64)
    for i in range(steps):
        words = (arrays[i].ctypes.data, ones.ctypes.data, arrays[i + 1].ctypes.data, length, count.ctypes.data, counters[i].ctypes.data)
        tape[i, :2] = kernel("pointwise", "add"), 1
        tape[i, 2:8] = words
    return tape, arrays, [ones, count, counters]


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_each_step_sees_all_of_the_one_before(threads: int):
    tape, arrays, keep = sums(1000, 300)
    pool = ThreadPool(threads)
    for _ in range(5):
        arrays[-1].fill(0)
        pool.walk(tape)
        assert (arrays[-1] == 300).all()
    pool.close()
    assert keep


def test_part_of_a_tape(threads: int = 2):
    tape, arrays, keep = sums(64, 10)
    ThreadPool(threads).walk(tape, 4)
    assert (arrays[4] == 4).all() and not arrays[5].any() and keep


def test_pools_in_several_python_threads_do_not_disturb_each_other():
    failures = []

    def work():
        tape, arrays, keep = sums(500, 100)
        pool = ThreadPool(2)
        for _ in range(20):
            arrays[-1].fill(0)
            pool.walk(tape)
            if not (arrays[-1] == 100).all() or not keep:
                failures.append(arrays[-1])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_helpers_end_with_their_pool():
    before = set(threading.enumerate())
    pools = [ThreadPool(3) for _ in range(4)]
    helpers = set(threading.enumerate()) - before
    assert len(helpers) == 8
    del pools
    gc.collect()
    for thread in helpers:
        thread.join(10)
        assert not thread.is_alive()


INTERRUPTED = """
import signal, sys, threading, time
import numpy as np
from tests.runtime.test_parallel import sums
from ggpy.runtime.parallel import ThreadPool
tape, arrays, keep = sums(20_000, 300)
pool = ThreadPool(2)
walks = interrupts = 0
walking = False
stop = time.monotonic() + 3
def struck(*_):
    global walking
    if walking:
        walking = False
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, struck)
def strike():
    while time.monotonic() < stop:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.003)
striker = threading.Thread(target=strike)
striker.start()
while time.monotonic() < stop + 0.2:
    arrays[-1].fill(0)
    walks += 1
    try:
        walking = True
        pool.walk(tape)
        walking = False
    except KeyboardInterrupt:
        interrupts += 1
striker.join()
arrays[-1].fill(0)
pool.walk(tape)
assert (arrays[-1] == 300).all()
print(walks, interrupts)
"""


def test_interrupts_leave_the_pool_in_order():
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False
    )
    assert run.returncode == 0, run.stderr
    walks, interrupts = map(int, run.stdout.split())
    assert interrupts > 50 and walks >= interrupts and not run.stderr
