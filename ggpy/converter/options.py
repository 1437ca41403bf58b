"""How a conversion is to go: what `ggpy.convert` takes as keyword arguments, in one frozen object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ggpy.converter.lora_merge import Weighted
from ggpy.converter.progress import OnProgress, OnWarning
from ggpy.errors import GGPyError, printable
from ggpy.runtime.host import available_threads

VERIFY = ("full", "bytes", "none")
"""How far a new file is verified: read back and certified, only read back, not at all."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of `ggpy.convert`, which documents them, with their defaults."""

    type: str | None = None
    force: bool = False
    threads: int | None = None
    strict: bool = False
    verify: str | bool = "full"
    allow_uncertified: bool = False
    measure_error: bool = False
    resume: bool = False
    allow_nonfinite: bool = False
    lora: Sequence[Weighted] = ()
    on_progress: OnProgress | None = None
    on_warning: OnWarning | None = None

    @property
    def level(self) -> str:
        """How far the new file is verified: one of `VERIFY`; raises GGPyError for anything else."""
        level = ("full" if self.verify else "none") if isinstance(self.verify, bool) else self.verify
        if level not in VERIFY:
            raise GGPyError(f"verify is {printable(repr(level), 40)}, expected one of {', '.join(VERIFY)}")
        return level

    @property
    def workers(self) -> int:
        """Threads that encode and read back."""
        return self.threads or available_threads()
