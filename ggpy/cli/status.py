"""What a command says on stderr while it works: lines that stay, and one line that is overwritten where stderr is a terminal."""

from __future__ import annotations

import shutil
import sys

from ggpy.errors import printable


class Status:
    """Lines on stderr under a command's name. `quiet` keeps only what `say` says."""

    def __init__(self, prog: str):
        self.prog = prog
        self._terminal = sys.stderr.isatty()
        self._shown = False

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        print(f"{self.prog}: {printable(line, 2000)}", file=sys.stderr, flush=True)

    def show(self, line: str) -> None:
        """A line that the next one replaces; left out where stderr is no terminal."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{printable(line)[:width]}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def clear(self) -> None:
        """Take the replaceable line away."""
        if self._shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self._shown = False
