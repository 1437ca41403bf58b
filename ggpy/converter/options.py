"""How a conversion is to go: what `ggpy.convert` takes as keyword arguments, in one frozen object."""

from __future__ import annotations

from dataclasses import dataclass

from ggpy.converter.progress import OnProgress, OnWarning
from ggpy.runtime.host import available_threads


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of `ggpy.convert`, which documents them, with their defaults."""

    type: str = "q4_k_m"
    force: bool = False
    threads: int | None = None
    strict: bool = False
    verify: bool = True
    measure_error: bool = False
    resume: bool = False
    allow_nonfinite: bool = False
    on_progress: OnProgress | None = None
    on_warning: OnWarning | None = None

    @property
    def workers(self) -> int:
        """Threads that encode and read back."""
        return self.threads or available_threads()
