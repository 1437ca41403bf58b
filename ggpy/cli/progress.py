"""How far a conversion is, on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ggpy.errors import printable

if TYPE_CHECKING:
    from ggpy.converter import Progress

_LINE_SECONDS = 5.0  # between two lines of progress where there is no terminal
_UNITS = {"encode": "M weights/s", "examine": "M weights/s", "verify": "MB/s"}  # a million of what is counted


@contextlib.contextmanager
def shown_progress() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """What to call with progress, and with lines to show beside it: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(), lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("{task.fields[what]}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        stage, task, pace = "", bars.add_task("read", total=None, what="", pace=""), None

        def show(progress: Progress) -> None:
            nonlocal stage, task, pace
            if progress.stage != stage or pace is None:  # one line, of the stage that is under way
                bars.remove_task(task)
                stage, pace = progress.stage, _Pace(progress)
                task = bars.add_task(stage, total=progress.total, what="", pace="")
            bars.update(task, completed=progress.done, what=printable(progress.what, 40), pace=pace.after(progress))

        yield show, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Pace:
    """How fast a stage goes and how long it will take, from what was done since it began: an interrupted conversion does not begin at 0."""

    def __init__(self, first: Progress):
        self._began, self._first = time.monotonic(), first.done

    def after(self, progress: Progress) -> str:
        """Such as "180 M weights/s, 12 s left"; empty as long as nothing can be told."""
        seconds, done = time.monotonic() - self._began, progress.done - self._first
        if seconds < 0.5 or done <= 0:
            return ""
        left = seconds * (progress.total - progress.done) / done
        speed = f"{done / seconds / 1e6:.0f} {_UNITS[progress.stage]}, " if progress.stage in _UNITS else ""
        return f"{speed}{_time(left)} left"


def _time(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class _Lines:
    """Progress as plain lines on stderr: each encoder that is compiled, and every few seconds how far the rest is."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._stage, self._pace = "", None

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage or self._pace is None:
            self._stage, self._pace = progress.stage, _Pace(progress)
        if progress.stage == "compile":
            line = f"compiling {printable(progress.what)} ({progress.done + 1} of {progress.total}), once per machine"
            print(line, file=sys.stderr, flush=True)
        elif now - self._shown >= _LINE_SECONDS and (pace := self._pace.after(progress)):
            self._shown = now
            share = f"{progress.done / progress.total:.0%}, {pace}, at {printable(progress.what, 64)}"
            print(f"{progress.stage}: {share}", file=sys.stderr, flush=True)
