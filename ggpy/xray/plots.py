"""The pictures of an examination's page: where the error is by layer and kind, how it is spread, and what the worst tensors look like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ggpy.errors import printable
from ggpy.xray.bins import ERRORS, SCALES, Bins
from ggpy.xray.channels import Channels
from ggpy.xray.quants import Quants
from ggpy.xray.record import ErrorFigures, TensorXray
from ggpy.xray.svg import STEPS, box, curve, label, label_width, line, plot, shade, ticks
from ggpy.xray.words import percent

WIDTH = 960.0  # of a plot over the whole page
_SMALL, _HIGH = 300.0, 150.0  # of one of three beside each other
_ROW = 19.0  # of a line of marks
_MARGIN = 30.0
_ON = {"q5": "on mid", "q6": "on hi", "q7": "on hi", "q8": "on hi", "bad": "on hi"}  # how figures stand out from a square's colour
_BARS = 40  # of a histogram
_TAIL = 0.0005  # of what is counted may lie beyond a histogram's ends
_MAX_LAYERS, _MAX_KINDS = 256, 40  # of a map


def heatmap(tensors: Sequence[TensorXray], value: Callable[[TensorXray], float | None], title: str, show: Callable[[float], str]) -> str:
    """A map of layers and kinds, coloured by the logarithm of `value`; empty where no tensor of a layer has one. show: a value as text."""
    cells = {(t.kind, t.layer): (found, t) for t in tensors if t.layer is not None and (found := value(t)) is not None}
    cells = {place: cell for place, cell in cells.items() if place[1] < _MAX_LAYERS}
    kinds = list(dict.fromkeys(t.kind for t in tensors if (t.kind, t.layer) in cells))
    kinds = [kind for kind in kinds if any(found != 0 for (k, _), (found, _) in cells.items() if k == kind)][:_MAX_KINDS]
    cells = {place: cell for place, cell in cells.items() if place[0] in kinds}
    if not cells:
        return ""
    layers = 1 + max(layer for _, layer in cells)
    finite = [found for found, _ in cells.values() if found > 0 and math.isfinite(found)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 1.0)
    names = [printable(kind, 24) for kind in kinds]
    left = label_width(names) + 10
    cell = min(26.0, (WIDTH - left - 4) / layers)
    height = max(12.0, min(24.0, cell))
    marks = []
    for i, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        marks.append(label(left - 8, i * height + height / 2 + 4, name, "end"))
        for layer in range(layers):
            if (kind, layer) in cells:
                found, tensor = cells[kind, layer]
                tip = f"{tensor.name.removesuffix('.weight')}, {tensor.format}: {show(found)}"
                colour = shade(found, low, high)
                marks.append(box(left + layer * cell, i * height, cell - 1, height - 1, colour, tip))
                if cell > 23:
                    words, ink = _in_cell(found, show), _ON.get(colour, "on")
                    marks.append(label(left + (layer + 0.5) * cell - 0.5, i * height + height / 2 + 2.5, words, "middle", ink))
    bottom = len(kinds) * height
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100) if n * cell >= 22)
    marks += [label(left + (i + 0.5) * cell, bottom + 14, i, "middle", "dim") for i in range(0, layers, every)]
    marks += _scale(left, bottom + 24, show(low), show(high))
    return plot(WIDTH, bottom + 46, f"{title}, by kind (rows) and layer (columns)", marks)


def _in_cell(value: float, show: Callable[[float], str]) -> str:
    """Two digits of a figure, three characters at most."""
    number = show(value).split()[0]
    if "e" in number or not number.replace(".", "").isdigit():
        return ""
    if float(number) < 0.005:
        return "0"
    return f"{float(number):.2f}".removeprefix("0") if float(number) < 0.995 else f"{float(number):.{1 if float(number) < 9.95 else 0}f}"


def _scale(x: float, y: float, low: str, high: str) -> list[str]:
    start = x + label_width([low]) + 8
    swatches = [box(start + i * 18, y, 18, 10, f"q{i}") for i in range(STEPS)]
    return [label(x, y + 9, low, "start", "dim"), *swatches, label(start + STEPS * 18 + 8, y + 9, high, "start", "dim")]


def ranking(tensors: Sequence[TensorXray]) -> str:
    """The share of the loss of each tensor, and beside it how the errors of its blocks spread: from the median to the 99th percentile, with
    the tensor's own error."""
    rows = [(t, t.error) for t in tensors if t.error]
    if not rows:
        return ""
    names = [printable(t.name.removesuffix(".weight"), 32) for t, _ in rows]
    left = label_width(names) + 10
    middle = left + (WIDTH - left) * 0.42
    largest = max((e.share or 0.0 for _, e in rows), default=0.0) or 1.0
    points = [v for _, e in rows for v in (e.p50, e.p99, e.relative_rmse) if v > 0 and math.isfinite(v)]
    low, high = (min(points) * 0.9, max(points) * 1.1) if points else (0.01, 1.0)
    bottom = len(rows) * _ROW
    at = _log_axis(low, high, middle + 70, WIDTH - 16)
    marks = []
    for tick in ticks(low, high):
        marks += [line(at(tick), 0, at(tick), bottom, "grid"), label(at(tick), bottom + 14, f"{100 * tick:.4g} %", "middle", "dim")]
    marks += [label(left, bottom + 14, "share of the loss", "start", "dim")]
    for i, ((_tensor, error), name) in enumerate(zip(rows, names, strict=True)):
        y = i * _ROW
        share, width = error.share or 0.0, (middle - left - 50) * (error.share or 0.0) / largest
        marks += [label(left - 8, y + 13, name, "end"), box(left, y + 3, max(1.0, width), _ROW - 7, "bar")]
        marks.append(label(left + width + 5, y + 13, percent(share) if error.share is not None else "not known", "start", "dim"))
        marks += _spread(error, at, y)
    return plot(
        WIDTH, bottom + 20, "Share of the loss, and the spread of the errors of blocks: median, 99th percentile, whole tensor", marks
    )


def _spread(error: ErrorFigures, at: Callable[[float], float], y: float) -> list[str]:
    if not (error.p50 > 0 and math.isfinite(error.p99) and math.isfinite(error.relative_rmse)):
        return []
    tip = f"blocks: median {percent(error.p50)}, 90 % below {percent(error.p90)}, 99 % below {percent(error.p99)}"
    whole = at(error.relative_rmse)
    return [
        box(at(error.p50), y + 6, at(error.p99) - at(error.p50), _ROW - 13, "range", tip),
        box(at(error.p50) - 2, y + 4, 4, _ROW - 9, "bar", tip),
        line(whole, y + 2, whole, y + _ROW - 3, "mark"),
    ]


def block_errors(error: ErrorFigures) -> str:
    """How many blocks have which relative error."""
    return histogram(ERRORS, error.blocks, "Blocks by relative error", lambda value: f"{100 * value:.3g} %")


def scales(quants: Quants) -> str:
    return histogram(SCALES, quants.scales, "Sub-blocks by magnitude of their scale", lambda value: f"{value:.2g}")


def histogram(bins: Bins, counts: Sequence[int], title: str, show: Callable[[float], str]) -> str:
    """Counts over powers of two; what few values are far below or above all others count in the outer bars."""
    total = sum(counts)
    if not total:
        return ""
    merge = 8
    while True:  # as fine as there is room for bars
        values = np.array(counts).reshape(-1, merge).sum(axis=1)
        first, last = (int(np.searchsorted(np.cumsum(values), share * total)) for share in (_TAIL, 1 - _TAIL))
        if merge == 1 or 2 * (last - first + 1) > _BARS:
            break
        merge //= 2
    tails = int(values[:first].sum()), int(values[last + 1 :].sum())
    last += 1
    values, width = values[first:last].copy(), (_SMALL - 10) / (last - first)
    values[0] += tails[0]
    values[-1] += tails[1]
    low, high, most = bins.lower(first * merge), bins.lower(last * merge), int(values.max())
    marks, at = [], _log_axis(low, high, 5, _SMALL - 5)
    for i, count in enumerate(values):
        if count:
            begins, ends = (show(bins.lower((first + i + j) * merge)) for j in (0, 1))
            outer = f"up to {ends}" if i == 0 and tails[0] else f"{begins} and more" if i == len(values) - 1 and tails[1] else ""
            size = max(1.0, (_HIGH - 8) * int(count) / most)
            marks.append(
                box(5 + i * width, _HIGH - size, max(1.0, width - 1), size, "bar", f"{outer or f'{begins} to {ends}'}: {int(count)}")
            )
    chosen = [tick for tick in ticks(low, high, 5) if 22 < at(tick) < _SMALL - 22]
    marks += [label(at(tick), _HIGH + 14, show(tick), "middle", "dim") for tick in chosen]
    return plot(_SMALL, _HIGH + 20, title, [*marks, line(5, _HIGH, _SMALL - 5, _HIGH, "axis")])


def levels(quants: Quants) -> str:
    """How often each level of the format is used."""
    if not quants.levels:
        return ""
    most, width = max(quants.counts) or 1, (_SMALL - 10) / len(quants.levels)
    marks, total = [], sum(quants.counts) or 1
    for i, (level, count) in enumerate(zip(quants.levels, quants.counts, strict=True)):
        size = (_HIGH - 8) * count / most
        tip = f"level {level:g}: {percent(count / total)}"
        gap = 1 if width > 3 else 0
        marks.append(box(5 + i * width, _HIGH - max(1.0, size), width - gap, max(1.0, size), "bar" if count else "bad", tip))
    for i in (0, len(quants.levels) // 2, len(quants.levels) - 1):
        anchor = "start" if i == 0 else "end" if i == len(quants.levels) - 1 else "middle"
        marks.append(
            label(
                5 + (i + (0.0 if i == 0 else 1.0 if anchor == "end" else 0.5)) * width, _HIGH + 14, f"{quants.levels[i]:g}", anchor, "dim"
            )
        )
    return plot(_SMALL, _HIGH + 20, "Weights by level", [*marks, line(5, _HIGH, _SMALL - 5, _HIGH, "axis")])


def profile(channels: Channels, noun: str) -> str:
    """Magnitude and error of all rows or columns, and input where it is known, each as times its own median; outliers by number."""
    lines = [
        (values, kind)
        for values, kind in ((channels.magnitude, "magnitude"), (channels.error, "error"), (channels.input, "input"))
        if values
    ]
    shown = [(_relative(values), kind) for values, kind in lines]
    high = max((max(values) for values, _ in shown), default=0.0)
    if high <= 0:
        return ""
    low, high = max(min((v for values, _ in shown for v in values if v > 0), default=1.0), 0.02), max(2.0, high) * 1.25
    low = min(0.9 * low, 0.5)
    width, height = WIDTH - _MARGIN - 10, 130.0
    at = _log_axis(low, high, height, 4)
    marks = [line(_MARGIN, at(tick), _MARGIN + width, at(tick), "grid") for tick in ticks(low, high, 5)]
    marks += [label(_MARGIN - 6, at(tick) + 4, f"{tick:g}", "end", "dim") for tick in ticks(low, high, 5)]
    points = max(1, len(channels.magnitude))
    for values, kind in shown:
        marks.append(curve([(_MARGIN + (i + 0.5) * width / points, at(max(value, low))) for i, value in enumerate(values)], f"line {kind}"))
    marks += _named(channels, width, at, low, high)
    marks += [label(_MARGIN, height + 16, f"{noun} 0", "start", "dim")]
    marks.append(label(_MARGIN + width, height + 16, f"{noun} {channels.count - 1}", "end", "dim"))
    kinds = ", ".join(kind for _, kind in shown)
    neighbours = f", the largest of {channels.step} neighbours each" if channels.step > 1 else ""
    return plot(WIDTH, height + 22, f"{kinds} of {noun}s as times the median {noun}'s{neighbours}", marks)


def _named(channels: Channels, width: float, at: Callable[[float], float], low: float, high: float) -> list[str]:
    marks, taken = [], []
    for outlier in sorted(channels.outliers, key=lambda o: -o.times):
        x = _MARGIN + (outlier.index + 0.5) * width / channels.count
        if len(taken) < 6 and all(abs(x - other) > 46 for other in taken):
            taken.append(x)
            anchor = "start" if x < _MARGIN + 30 else "end" if x > _MARGIN + width - 30 else "middle"
            marks.append(label(x, max(12.0, at(min(high, max(low, outlier.times))) - 4), outlier.index, anchor, outlier.what))
    return marks


def _relative(values: Sequence[float]) -> list[float]:
    median = float(np.median(values))
    return [value / median for value in values] if median > 0 else [0.0] * len(values)


def _log_axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Where on an axis from `start` to `end` a value lies."""
    span = math.log(high) - math.log(low)
    return lambda value: start + (end - start) * ((math.log(value) - math.log(low)) / span if span > 0 else 0.5)
