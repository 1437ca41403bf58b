"""How a conversion is to go: what `ggpy.convert` takes as keyword arguments, in one frozen object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ggpy.converter.keep import type_name
from ggpy.converter.lora_merge import Weighted
from ggpy.converter.progress import OnProgress, OnWarning
from ggpy.converter.tensor_types import Choices, find_format, parse_overrides
from ggpy.errors import GGPyError, printable
from ggpy.quantize.ways import DEFAULT_WAY, Way, find_way
from ggpy.runtime.host import available_threads

VERIFY = ("full", "bytes", "none")
"""How far a new file is verified: read back and certified, only read back, not at all."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of `ggpy.convert`, which documents them, with their defaults. overrides: (pattern, type) pairs."""

    type: str | None = None
    imatrix: Path | None = None
    calibrate: Path | None = None
    method: str | None = None
    calibration_tokens: int | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    keep_output: bool = False
    pure: bool = False
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

    def check(self) -> None:
        """Raise GGPyError for types and patterns that are none, before a source is opened."""
        _ = type_name(self.type), self.choices, self.way
        if self.calibrate is not None and self.imatrix is not None:
            raise GGPyError("imatrix and calibrate: give one of them, calibrating finds what an importance matrix says")
        if self.calibration_tokens is not None and (self.calibrate is None or self.calibration_tokens < 1):
            raise GGPyError(f"calibration tokens {self.calibration_tokens}: expected 1 or more, beside a text to calibrate on")

    @cached_property
    def choices(self) -> Choices:
        """What is asked beside the recipe; GGPyError for patterns and types that are none."""
        return Choices(
            parse_overrides(self.overrides),
            find_format(self.output_type, "output type") if self.output_type else None,
            find_format(self.embedding_type, "embedding type") if self.embedding_type else None,
            self.pure,
            self.keep_output,
            self.imatrix is not None or self.calibrate is not None,
        )

    @property
    def way(self) -> Way:
        """How weights are rounded; raises GGPyError for a method that is none, or that needs a text where there is none."""
        way = find_way(self.method or ("rtn" if self.calibrate is None else DEFAULT_WAY))
        if self.calibrate is None and way.name != "rtn":
            raise GGPyError(f"method {way.name} needs a text to calibrate on (--calibrate TEXT, or calibrate=)")
        if self.calibrate is not None and way.name == "rtn":
            raise GGPyError("method rtn rounds each weight to the nearest and needs no text: leave calibrate out, or take another method")
        return way

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
