"""Threads that run compiled kernels together, GIL released: a pool for tapes, and a one-off call for single kernels."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
import weakref

import numpy as np

from ggpy.kernels.desks import DESK_BYTES, DESKS, INSIDE, ON
from ggpy.runtime.compiled import kernel

LINE = 64  # bytes of a cache line

_CALL = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_ssize_t)  # ctypes releases the GIL around it


def run_kernel(address: int, words: np.ndarray, threads: int = 1) -> None:
    """Call the kernel at `address` once on each of `threads` threads with the int64 `words`, and wait for all of them."""
    assert words.dtype == np.int64 and words.flags.c_contiguous
    call = _CALL(address)
    others = [threading.Thread(target=call, args=(words.ctypes.data, i, threads)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    call(words.ctypes.data, 0, threads)
    for thread in others:
        thread.join()


def yield_address() -> int:
    """Address of the C function by which a thread offers its processor to others."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class ThreadPool:
    """`threads` threads, the caller's among them, that walk tapes together. One walk at a time; `close()` ends the helpers.

    The caller could walk alone: helpers take a share of the work when they come. After a walk they spin for the next one about as long as a
    sampler takes, then sleep, on a lock each; who wakes up wakes the next. They are daemons and end with the pool's owner.

    A helper may come out of a walk later than the caller, reading what the walk read: `settle()` before that memory is freed.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._run = _CALL(kernel("executor", "run"))
        self._words = np.zeros(5, np.int64)
        self._address = self._words.ctypes.data
        state = np.zeros(DESKS + threads * DESK_BYTES + LINE, np.uint8)
        self._state = state[-state.ctypes.data % LINE :][: DESKS + threads * DESK_BYTES].view(np.int64)
        self._words[2], self._words[3] = self._state.ctypes.data, yield_address()
        self._helpers = [_Helper(self._run, self._words, self._state, i, threads) for i in range(1, threads)]
        for i, helper in enumerate(self._helpers, 1):
            threading.Thread(target=helper.work, args=(self._helpers[i:],), daemon=True, name=f"ggpy-{i}").start()
        self._finalizer = weakref.finalize(self, _close, self._helpers)

    @property
    def desks(self) -> int:
        """Address of what the threads show each other, for kernels whose work another thread may do over (`ggpy.kernels.claims`)."""
        return self._state.ctypes.data + DESKS

    @property
    def walks(self) -> int:
        """How many walks there were, the one that is on among them."""
        return int(self._words[4])

    def walk(self, tape: np.ndarray, count: int | None = None) -> None:
        """Run the first `count` ops (default all) of `tape`: int64 (n_ops, 20), on every thread of the pool that has the time.

        A walk that has begun is finished, whatever signals arrive; then their exception is raised. The counters of the tape's kernels
        belong to this pool: they hold the numbers of its walks.
        """
        count = len(tape) if count is None else count
        if not count:
            return
        self._words[0], self._words[1] = tape.ctypes.data, count
        self._words[4] += 1
        run, address, threads = self._run, self._address, self.threads
        try:
            _wake_one(self._helpers)
        finally:
            run(address, 0, threads)

    def settle(self) -> None:
        """Return when no helper reads anything of a walk any more."""
        _settle(self._helpers)

    def close(self) -> None:
        """End the helper threads; the pool is of no use afterwards."""
        self._finalizer()


class _Helper:
    """A helper thread: holds the arrays it touches, not the pool, so that the pool can be collected."""

    def __init__(self, run, words: np.ndarray, state: np.ndarray, ith: int, threads: int):
        self._run, self._words, self._state, self._ith, self._threads = run, words, state, ith, threads
        self._desk = state[(DESKS + ith * DESK_BYTES) // 8 :][: DESK_BYTES // 8]
        self._bell = threading.Lock()  # taken by the helper; whoever wants it awake releases it
        self._bell.acquire()
        self._asleep = self._closing = False
        self._process = os.getpid()

    def work(self, following: list[_Helper]) -> None:
        address = self._words.ctypes.data
        while not self._closing:
            self._run(address, self._ith, self._threads)
            self._asleep = True
            if self._state[ON // 8] == 2 * self._words[4]:  # else a walk began before it was known that this thread sleeps
                self._bell.acquire()
            self._asleep = False
            _wake_one(following)

    def wake(self) -> bool:
        """Whether it slept."""
        if not self._asleep or not self._bell.locked():
            return False
        with contextlib.suppress(RuntimeError):  # two may do this at once
            self._bell.release()
        return True

    def end(self) -> None:
        self._closing = True
        with contextlib.suppress(RuntimeError):
            self._bell.release()

    def is_inside(self) -> bool:
        return bool(self._desk[INSIDE // 8]) and self._process == os.getpid()  # a forked process has no helpers


def _wake_one(helpers: list[_Helper]) -> None:
    """Wake the first that sleeps, which wakes the next."""
    for helper in helpers:
        if helper.wake():
            return


def _settle(helpers: list[_Helper]) -> None:
    while any(helper.is_inside() for helper in helpers):
        time.sleep(0.0001)


def _close(helpers: list[_Helper]) -> None:
    for helper in helpers:
        helper.end()
    _settle(helpers)
