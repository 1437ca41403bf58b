"""What can be had of a model: points of size, KL divergence and speed, and what to say about them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ggpy.converter.report import size_in_words


@dataclass(frozen=True)
class Point:
    """One way to write the model. label: a recipe's name, or none. kl: expected mean KL divergence, in nats per token."""

    label: str
    file_bytes: int
    bits_per_weight: float
    kl: float
    tokens_per_second: float


@dataclass(frozen=True)
class Curve:
    """From the sum of the tensors' own KLs to that of all of them quantized at once, as it was measured: (sum, measured) pairs."""

    measured: tuple[tuple[float, float], ...] = ()

    def __call__(self, total: float) -> float:
        """Expected KL: on straight lines between the pairs, both in logarithms, and in proportion beyond them."""
        pairs = sorted((s, m) for s, m in self.measured if s > 0 and m > 0)
        if not pairs or total <= 0:
            return total
        if total <= pairs[0][0] or len(pairs) == 1:
            return total * pairs[0][1] / pairs[0][0]
        if total >= pairs[-1][0]:
            return total * pairs[-1][1] / pairs[-1][0]
        (s0, m0), (s1, m1) = next((a, b) for a, b in itertools.pairwise(pairs) if total <= b[0])
        share = math.log(total / s0) / math.log(s1 / s0) if s1 > s0 else 0.0
        return math.exp(math.log(m0) + share * math.log(m1 / m0))

    def inverse(self, kl: float) -> float:
        """The largest sum whose expected KL is `kl` at the most."""
        low, high = -60.0, 10.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if self(math.exp(middle)) <= kl else (low, middle)
        return math.exp(low)


def at_size(front: Sequence[Point], file_bytes: float) -> Point | None:
    """The best point of the front that is not larger."""
    fitting = [point for point in front if point.file_bytes <= file_bytes]
    return max(fitting, key=lambda point: point.file_bytes, default=None)


def at_kl(front: Sequence[Point], kl: float) -> Point | None:
    """The smallest point of the front that is not worse."""
    fitting = [point for point in front if point.kl <= kl]
    return min(fitting, key=lambda point: point.file_bytes, default=None)


def advice(chosen: Point, front: Sequence[Point], recipes: Sequence[Point]) -> str:
    """One sentence: what the choice is, beside the recipe nearest to it, and what a tenth more bytes would change."""
    parts = [
        f"{size_in_words(chosen.file_bytes)} at {chosen.bits_per_weight:.2f} bits per weight and about "
        f"{chosen.tokens_per_second:.3g} tokens/s will be {chosen.kl:.2g} nats from the source"
    ]
    near = min(recipes, key=lambda r: abs(math.log(r.file_bytes / chosen.file_bytes)), default=None)
    if near is not None and abs(near.file_bytes / chosen.file_bytes - 1) < 0.15:
        words = f"{near.label} ({size_in_words(near.file_bytes)}) {near.kl:.2g}"
        parts.append(f"where {words} is" if near.kl > chosen.kl else f"{words}")
    larger = at_size(front, 1.1 * chosen.file_bytes)
    if larger is not None and larger.file_bytes > 1.04 * chosen.file_bytes:
        ratio = larger.kl / chosen.kl if chosen.kl else 1.0
        worth = "worth it" if ratio < 0.7 else "hardly worth it" if ratio > 0.85 else "some gain"
        parts.append(f"a tenth more bytes would leave {ratio:.0%} of that ({worth})")
    return ", ".join(parts) + "."
