"""What one rendering may cost. Every node, every created character and every list item is paid for before it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ggpy.errors import TemplateError

MAX_SOURCE = 256 * 1024  # bytes of a template
MAX_TOKENS = 50_000  # of a template's source: parsing takes about 20 µs each; real templates have up to 5000
MAX_TEXT = 1_000_000  # characters of one string, and of the output
MAX_ITEMS = 100_000  # items of one list or range
MAX_BITS = 4096  # of one integer
MAX_NESTING = 64  # macros calling macros; lists within lists
MAX_STEPS = 2_000_000
MAX_SECONDS = 2.0
_CHARACTERS_PER_STEP = 32  # so all text ever made is below 64 M characters
_STEPS_PER_LOOK = 256  # at the clock


@dataclass
class Budget:
    """Steps and seconds left. All methods raise TemplateError when the limit they guard is passed."""

    steps: int = MAX_STEPS
    deadline: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)
    emitted: int = 0
    _next_look: int = MAX_STEPS

    def spend(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < self._next_look:
            self._next_look = self.steps - _STEPS_PER_LOOK
            if self.steps < 0:
                raise TemplateError(f"chat template takes more than {MAX_STEPS} steps")
            if time.monotonic() > self.deadline:
                raise TemplateError(f"chat template takes more than {MAX_SECONDS:g} seconds")

    def text(self, length: int, ranges: int = 0) -> None:
        """Pay for a string of `length` characters with `ranges` of marks, before it is made."""
        if length > MAX_TEXT:
            raise TemplateError(f"chat template makes a text of {length} characters; at most {MAX_TEXT} are allowed")
        self.spend(1 + length // _CHARACTERS_PER_STEP + ranges)

    def items(self, count: int) -> None:
        """Pay for a list of `count` items."""
        if count > MAX_ITEMS:
            raise TemplateError(f"chat template makes a list of {count} items; at most {MAX_ITEMS} are allowed")
        self.spend(1 + count)

    def bits(self, count: int) -> None:
        """Refuse an integer of more than MAX_BITS bits, before it is computed."""
        if count > MAX_BITS:
            raise TemplateError(f"chat template computes a number of {count} bits; at most {MAX_BITS} are allowed")

    def emit(self, length: int) -> None:
        """Pay for output, wherever it goes."""
        self.emitted += length
        if self.emitted > MAX_TEXT:
            raise TemplateError(f"chat template writes more than {MAX_TEXT} characters")
        self.spend(1 + length // _CHARACTERS_PER_STEP)
