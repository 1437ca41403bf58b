"""Kernels compiled several at a time, in processes: what Numba does is Python, of which a process runs one thread at a time.

This process compiles, too; each takes the next kernel when it is done with one, those that take longest first. A helper that fails leaves
its kernel to this process, where the error is told.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence

Name = tuple[str, str]
Object = tuple[bytes, str]
"""(object code, name of its entry)"""

PER_PROCESS = 3  # kernels that are worth a helper, which needs about a second before it compiles any
MOST_PROCESSES = 4
_LONGEST = ("linear", "attention")  # seconds each; the others take tenths


def compile_kernels(
    names: Sequence[Name],
    threads: int,
    on_compile: Callable[[Name, int, int], None] | None = None,
    keep: Callable[[Name, bytes, str], None] | None = None,
) -> dict[Name, Object]:
    """Object code of each kernel, by up to `threads` processes.

    on_compile(name, how many were begun before it, how many there are) is called before each kernel, one call at a time but not always from
    this thread; what it raises is raised here. keep(name, object code, entry) is called as soon as each is done.
    """
    work = _Work(names, on_compile, keep)
    helpers = min(threads, MOST_PROCESSES, len(names) // PER_PROCESS) - 1 if sys.executable else 0
    processes: list[subprocess.Popen[bytes]] = []
    feeders: list[threading.Thread] = []
    try:
        for _ in range(helpers):
            with contextlib.suppress(OSError):  # without a helper it takes longer
                processes.append(_start())
                feeders.append(threading.Thread(target=_feed, args=(processes[-1], work), daemon=True))
                feeders[-1].start()
        while True:
            while (name := work.take()) is not None:
                work.finish(name, *compile_kernel(name))
            for feeder in feeders:
                feeder.join()
            if not work.waiting:
                break
        if work.error is not None:
            raise work.error
        return work.done
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def compile_kernel(name: Name) -> Object:
    """Compile one kernel, in this process."""
    return getattr(importlib.import_module(f"ggpy.kernels.{name[0]}"), name[1]).emit()


class _Work:
    """What is to be compiled, and what is."""

    def __init__(
        self,
        names: Sequence[Name],
        on_compile: Callable[[Name, int, int], None] | None,
        keep: Callable[[Name, bytes, str], None] | None,
    ):
        self.waiting = deque(sorted(names, key=lambda name: _LONGEST.index(name[1]) if name[1] in _LONGEST else len(_LONGEST)))
        self.done: dict[Name, Object] = {}
        self.error: BaseException | None = None
        self._told: set[Name] = set()
        self._total, self._on_compile, self._keep, self._lock = len(names), on_compile, keep, threading.Lock()

    def take(self) -> Name | None:
        """The next kernel, announced; None when nothing waits, or an announcement failed."""
        with self._lock:
            if not self.waiting or self.error is not None:
                self.waiting.clear()
                return None
            name = self.waiting.popleft()
            if self._on_compile and name not in self._told:
                try:
                    self._on_compile(name, len(self._told), self._total)
                except BaseException as error:
                    self.error = error
                    return None
            self._told.add(name)
            return name

    def finish(self, name: Name, code: bytes, entry: str) -> None:
        self.done[name] = code, entry
        if self._keep:
            self._keep(name, code, entry)


def _start() -> subprocess.Popen[bytes]:
    """A process that compiles the kernels named on its stdin."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from ggpy.runtime.compiling import serve; serve()"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)


def _feed(process: subprocess.Popen[bytes], work: _Work) -> None:
    """Keep a helper at work; runs in a thread of its own."""
    assert process.stdin is not None and process.stdout is not None
    while (name := work.take()) is not None:
        try:
            process.stdin.write(json.dumps(name).encode() + b"\n")
            process.stdin.flush()
            entry, n_bytes = json.loads(process.stdout.readline())
            code = process.stdout.read(n_bytes)
            if len(code) < n_bytes:
                raise ValueError("cut short")
        except (OSError, ValueError, TypeError):
            work.waiting.append(name)
            return
        work.finish(name, code, entry)


def serve() -> None:
    """Compile what is asked for on stdin, a JSON list [module, attribute] a line: [entry, bytes] and the object code to stdout."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in sys.stdin.buffer:
            module, attribute = json.loads(line)
            code, entry = compile_kernel((module, attribute))
            sys.stdout.buffer.write(json.dumps([entry, len(code)]).encode() + b"\n" + code)
            sys.stdout.buffer.flush()
