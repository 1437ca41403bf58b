"""What a file must keep, and what was found that keeps it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ggpy.picker.chart import chart
from ggpy.picker.front import Curve, Point, advice
from ggpy.picker.sensitivity import Sensitivity


@dataclass(frozen=True)
class Target:
    """What a file must keep, each of them if it is given: bytes of the file, bits per weight, tokens per second when it decodes here, mean
    KL divergence from its source in nats per token. Without `kl` that is made as small as it gets, else the file."""

    file_bytes: int | None = None
    bits_per_weight: float | None = None
    tokens_per_second: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class Pick:
    """What was found. formats: by matrix. recipe: the one by whose name the file goes. chosen, front, recipes: see `Point`; curve: how sums
    of KLs compare with what was measured. tokens: scored to measure KL; threads: of the speeds."""

    source: str
    formats: Mapping[str, str]
    recipe: str
    chosen: Point
    front: tuple[Point, ...]
    recipes: tuple[Point, ...]
    curve: Curve
    tokens: int
    threads: int
    sensitivities: Mapping[str, Sensitivity]

    @property
    def overrides(self) -> tuple[tuple[str, str], ...]:
        """(pattern, format) pairs as `ggpy.convert` takes them."""
        return tuple((f"^{re.escape(name)}$", format) for name, format in self.formats.items())

    @property
    def advice(self) -> str:
        return advice(self.chosen, self.front, self.recipes)

    def __str__(self) -> str:
        counts = Counter(self.formats.values())
        formats = ", ".join(f"{count} {format}" for format, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        measured = ", ".join(f"{m:.2g} for a sum of {s:.2g}" for s, m in self.curve.measured)
        return "\n".join(
            [
                chart(self.front, self.recipes, self.chosen),
                "",
                f"tensors: {formats}",
                f"KL over {self.tokens} tokens of the text measured on; all tensors at once: {measured}",
                f"tokens/s: decoding with {self.threads} threads, short context",
                "",
                self.advice,
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return {
            "source": self.source,
            "type": self.recipe,
            "picked": asdict(self.chosen),
            "advice": self.advice,
            "formats": dict(self.formats),
            "front": [asdict(point) for point in self.front],
            "recipes": [asdict(point) for point in self.recipes],
            "checks": [{"sum": s, "measured": m} for s, m in self.curve.measured],
            "scored_tokens": self.tokens,
            "threads": self.threads,
            "tensors": {
                name: {"probe": s.probe, "probe_kl": s.probe_kl, "kl": s.kl(self.formats[name]), "errors": dict(s.errors)}
                for name, s in self.sensitivities.items()
            },
        }
