"""Threads that run compiled kernels together, GIL released: a pool for tapes, and a one-off call for single kernels."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref

import numpy as np

from ggpy.runtime.compiled import kernel

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

    Between walks each helper sleeps on a lock; waking the first wakes the others in turn. They are daemons and end with the pool's owner.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._run = _CALL(kernel("executor", "run"))
        self._words = np.zeros(5, np.int64)
        self._address = self._words.ctypes.data
        self._state = np.zeros(32, np.int64)
        self._words[2] = (self._state.ctypes.data + 63) & ~63
        self._words[3] = yield_address()
        self._wake = [threading.Lock() for _ in range(threads - 1)]
        self._closing = [False]
        for lock in self._wake:
            lock.acquire()
        for i, lock in enumerate(self._wake):
            following = self._wake[i + 1] if i + 1 < len(self._wake) else None
            work = (self._run, self._words, self._state, i + 1, threads, lock, following, self._closing)
            threading.Thread(target=_helper, args=work, daemon=True, name=f"ggpy-{i + 1}").start()
        self._finalizer = weakref.finalize(self, _close, self._wake, self._closing)

    def walk(self, tape: np.ndarray, count: int | None = None) -> None:
        """Run the first `count` ops (default all) of `tape`: int64 (n_ops, 20), on every thread of the pool.

        A walk that has begun is finished, whatever signals arrive; then their exception is raised. No helper needs to be waited for: all
        threads meet after the last op, and past that a helper touches nothing of the walk.
        """
        self._words[0], self._words[1] = tape.ctypes.data, len(tape) if count is None else count
        if not self._words[1]:
            return
        self._words[4] += 1
        run, address, threads = self._run, self._address, self.threads
        try:
            if self._wake:
                self._wake[0].release()
        finally:
            run(address, 0, threads)

    def close(self) -> None:
        """End the helper threads; the pool is of no use afterwards."""
        self._finalizer()


def _helper(run, words, state, ith, nth, wake, following, closing) -> None:
    """A helper thread: holds the arrays it touches, not the pool, so that the pool can be collected."""
    address = words.ctypes.data
    while True:
        wake.acquire()
        if following is not None:
            following.release()
        if closing[0]:
            return
        run(address, ith, nth)


def _close(wake, closing) -> None:
    closing[0] = True
    if wake:
        wake[0].release()
