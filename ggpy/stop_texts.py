"""Texts that end a stream, found across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from ggpy.errors import GGPyError


class StopTexts:
    """Holds text back while it may be the beginning of a stop text."""

    def __init__(self, texts: Sequence[str]):
        if any(not text for text in texts):
            raise GGPyError("an empty stop text would end every answer at once")
        self._texts, self._held = tuple(texts), ""

    def feed(self, text: str) -> tuple[str, bool]:
        """(text that can be shown, whether a stop text has come)."""
        if not self._texts:
            return text, False
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._texts) if at >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max((n for stop in self._texts for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown, False

    def release(self) -> str:
        """What was held back: no stop text will come any more."""
        text, self._held = self._held, ""
        return text
