"""What a conversion says while it is under way: how far it is, and what it decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ggpy.errors import CheckpointError


@dataclass(frozen=True)
class Progress:
    """How far a conversion is.

    stage: "compile" (encoders, at the first use on a machine), "calibrate", "encode", "verify" or "certify"; what: encoder, tensor or layer
    at hand; done, total: encoders compiled, weights gone through, values encoded, bytes read back or layers run, so far and in all.
    """

    stage: str
    what: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]
OnWarning = Callable[[str], None]


class Meter:
    """Counts what is done of one stage and passes it on."""

    def __init__(self, stage: str, total: int, on_progress: OnProgress | None, done: int = 0):
        self._stage, self._total, self._done, self._on_progress = stage, total, done, on_progress

    def __call__(self, what: str, amount: int) -> None:
        self._done += amount
        if self._on_progress:
            self._on_progress(Progress(self._stage, what, self._done, self._total))


class Warnings:
    """Lines said so far, each once; in strict mode the first is an error."""

    def __init__(self, strict: bool, on_warning: OnWarning | None):
        self._strict, self._on_warning = strict, on_warning
        self.said: list[str] = []

    def extend(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line in self.said:
                continue
            if self._strict:
                raise CheckpointError(f"{line} (refused in strict mode)")
            self.said.append(line)
            if self._on_warning:
                self._on_warning(line)

    def note(self, line: str) -> None:
        """Say what is no reason to refuse anything."""
        if self._on_warning:
            self._on_warning(line)
