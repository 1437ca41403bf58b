"""How far a conversion is, on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ggpy.errors import printable

if TYPE_CHECKING:
    from ggpy.converter import Progress

_LINE_SECONDS = 5.0  # between two lines of progress where there is no terminal


@contextlib.contextmanager
def shown_progress() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """What to call with progress, and with lines to show beside it: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(), lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        tasks = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, what="")
            bars.update(tasks[progress.stage], completed=progress.done, what=printable(progress.what, 64))

        yield show, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Lines:
    """Progress as plain lines on stderr: each encoder that is compiled, and every few seconds how far the rest is."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began = progress.stage, now
        if progress.stage == "compile":
            print(
                f"compiling {printable(progress.what)} ({progress.done + 1} of {progress.total}), once per machine",
                file=sys.stderr,
                flush=True,
            )
        elif now - self._shown >= _LINE_SECONDS and now - self._began >= 1:
            self._shown = now
            left = (now - self._began) * (progress.total - progress.done) / progress.done
            share = f"{progress.done / progress.total:.0%}, about {left:.0f} s left, at {printable(progress.what, 64)}"
            print(f"{progress.stage}: {share}", file=sys.stderr, flush=True)
