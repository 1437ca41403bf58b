"""The front as text: size to the right, KL divergence upwards on a logarithmic scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ggpy.converter.report import size_in_words, table
from ggpy.picker.front import Point

WIDTH, HEIGHT = 64, 16
FRONT, CHOSEN = "·", "◆"


def chart(front: Sequence[Point], recipes: Sequence[Point], chosen: Point, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Lines of text: the front as dots, recipes as letters with a legend, the choice as a diamond."""
    largest = max(p.file_bytes for p in (*recipes, chosen))
    front = [p for p in front if p.kl > 0 and p.file_bytes <= 1.02 * largest]
    points = [p for p in (*front, *recipes, chosen) if p.kl > 0] or [chosen]
    left, right = (f(p.file_bytes for p in points) for f in (min, max))
    low, high = (f(math.log10(p.kl or 1e-12) for p in points) for f in (min, max))
    right, high = max(right, left + 1), max(high, low + 1e-9)
    cells = [[" "] * width for _ in range(height)]

    def place(point: Point, mark: str) -> None:
        x = round((point.file_bytes - left) / (right - left) * (width - 1))
        y = round((high - math.log10(max(point.kl, 1e-300))) / (high - low) * (height - 1))
        cells[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)] = mark

    for a, b in itertools.pairwise(front):
        for step in range(9):  # between two points the front is a line in this chart
            place(_between(a, b, step / 8), FRONT)
    letters = dict(zip("abcdefghijklmnopqrstuvwxyz", sorted(recipes, key=lambda p: p.file_bytes), strict=False))
    for letter, point in letters.items():
        place(point, letter)
    place(chosen, CHOSEN)
    labels = {round(i * (height - 1) / 4): f"{10 ** (high - i / 4 * (high - low)):.1e}" for i in range(5)}
    lines = ["KL divergence, nats per token"]
    lines += [f"{labels.get(y, ''):>8} {'┤' if y in labels else '│'}{''.join(row).rstrip()}" for y, row in enumerate(cells)]
    lines.append(" " * 9 + "└" + "─" * width)
    first, middle, last = (size_in_words(round(left + share * (right - left))) for share in (0, 0.5, 1))
    lines.append(" " * 10 + first + middle.center(width - len(first) - len(last)) + last)
    rows = [("", "", "size", "bits/weight", "KL", "tokens/s")]
    rows += [_row(letter, point) for letter, point in letters.items()]
    rows.append(_row(CHOSEN, chosen, "picked"))
    return "\n".join([*lines, "", *table(rows, left=2)])


def _between(a: Point, b: Point, share: float) -> Point:
    kl = math.exp((1 - share) * math.log(max(a.kl, 1e-300)) + share * math.log(max(b.kl, 1e-300)))
    return Point("", round(a.file_bytes + share * (b.file_bytes - a.file_bytes)), 0.0, kl, 0.0)


def _row(mark: str, point: Point, label: str | None = None) -> tuple[str, ...]:
    speed = f"{point.tokens_per_second:.1f}"
    return mark, label or point.label, size_in_words(point.file_bytes), f"{point.bits_per_weight:.3f}", f"{point.kl:.5f}", speed
