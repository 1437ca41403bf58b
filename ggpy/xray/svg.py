"""Plots as inline SVG: colours by class, so that a page can be light or dark; marks have their figures as titles, plots a description.

A plot is drawn in units of which one is a pixel at full width, and scales down with the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ggpy.errors import printable

_CHARACTER = 6.2  # width of one at the size plots are labelled in
STEPS = 9  # of the sequential scale, classes q0 to q8


def text(value: object, limit: int = 200) -> str:
    """A string from a file, safe in a page: control characters escaped, markup too."""
    return escape(printable(value, limit), quote=True)


def plot(width: float, height: float, title: str, marks: Sequence[str]) -> str:
    """Marks as one picture that says what it is; `title` is plain text."""
    return (
        f'<svg viewBox="0 0 {number(width)} {number(height)}" role="img" style="max-width:{number(width)}px">'
        f"<title>{text(title, 400)}</title>{''.join(marks)}</svg>"
    )


def number(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def label(x: float, y: float, words: object, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{_class(kind)}>{text(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    inside = f"<title>{text(tip, 400)}</title>" if tip else ""
    size = f'width="{number(max(0.0, width))}" height="{number(max(0.0, height))}"'
    return (
        f'<rect x="{number(x)}" y="{number(y)}" {size}{_class(kind)}>{inside}</rect>'
        if inside
        else (f'<rect x="{number(x)}" y="{number(y)}" {size}{_class(kind)}/>')
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"{_class(kind)}/>'


def curve(points: Sequence[tuple[float, float]], kind: str) -> str:
    return f'<path d="M{"L".join(f"{number(x)} {number(y)}" for x, y in points)}"{_class(kind)}/>' if points else ""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def shade(value: float, low: float, high: float) -> str:
    """The class of the sequential scale for a value between `low` and `high`, by its logarithm."""
    if not (value > 0 and math.isfinite(value)):
        return "q0" if value == 0 else "bad"
    if high <= low or low <= 0:
        return f"q{STEPS // 2}"
    at = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return f"q{min(STEPS - 1, max(0, int(at * STEPS)))}"


def label_width(words: Sequence[str]) -> float:
    """Room for the longest of some labels."""
    return _CHARACTER * max((len(word) for word in words), default=0)


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers on a logarithmic axis, as many as there is room for."""
    found: list[float] = []
    if 0 < low < high < math.inf:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)), tuple(d / 10 for d in range(10, 100, 2))):
            finer = [value for e in exponents for d in digits if low <= (value := d * 10.0**e) <= high]
            if len(finer) > most and found:
                break
            found = finer[:: -(-len(finer) // most)] if finer else []
    return found
