"""The front as one self-contained HTML page: a chart, and every tensor's format by layer."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from ggpy.blocks import BLOCKS
from ggpy.converter.report import size_in_words
from ggpy.picker.choice import Pick
from ggpy.picker.front import Point

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 420, 76, 46

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .15em .6em; text-align: right; font-variant-numeric: tabular-nums }
th { border-bottom: 1px solid #999; font-weight: 600 } td:first-child, th:first-child { text-align: left }
.types td { font-size: 12px; text-align: center; border: 1px solid #fff } .picked td { font-weight: 600 }
svg text { font: 12px system-ui, sans-serif; fill: #444 } .label { fill: #b04a00 }
"""


def page(picked: Pick) -> str:
    """The page's HTML; it loads nothing."""
    title = f"{html.escape(picked.source)}: size, quality and speed"
    checks = ", ".join(f"{m:.3g} for a sum of {s:.3g}" for s, m in picked.curve.measured)
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>',
            f"<h1>{title}</h1>\n<p>{html.escape(picked.advice)}</p>",
            _chart(picked),
            _points([*sorted(picked.recipes, key=lambda p: p.file_bytes), picked.chosen]),
            f"<p>KL divergence from the source in nats per token, over {picked.tokens} tokens of the text measured on. "
            f"All tensors quantized at once, measured: {html.escape(checks)}. "
            f"Tokens per second: decoding with {picked.threads} threads, short context.</p>",
            "<h2>Types</h2>",
            _types(picked),
            "</body></html>\n",
        ]
    )


def _chart(picked: Pick) -> str:
    largest = max(p.file_bytes for p in (*picked.recipes, picked.chosen))
    front = [p for p in picked.front if p.kl > 0 and p.file_bytes <= 1.02 * largest]
    points = [p for p in (*front, *picked.recipes, picked.chosen) if p.kl > 0] or [picked.chosen]
    left, right = (f(p.file_bytes for p in points) for f in (min, max))
    low, high = math.floor(min(_log(p) for p in points)), math.ceil(max(_log(p) for p in points))
    high = max(high, low + 1)

    def x(n_bytes: float) -> float:
        return _LEFT + (n_bytes - left) / max(1, right - left) * (_WIDTH - _LEFT - 90)

    def y(log: float) -> float:
        return 12 + (high - log) / (high - low) * (_HEIGHT - _BOTTOM - 12)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="KL divergence by file size">']
    for decade in range(low, high + 1):
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 80}" y1="{y(decade):.1f}" y2="{y(decade):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(decade) + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        n_bytes = left + share * (right - left)
        parts.append(f'<text x="{x(n_bytes):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{size_in_words(round(n_bytes))}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 4}">size of the file; KL divergence, nats per token, upwards</text>')
    line = " ".join(f"{x(p.file_bytes):.1f},{y(_log(p)):.1f}" for p in front)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0b6bcb" stroke-width="2"/>')
    for p in picked.recipes:
        if p.kl > 0:
            parts.append(
                f'<circle cx="{x(p.file_bytes):.1f}" cy="{y(_log(p)):.1f}" r="4" fill="#e07a1f"><title>{_words(p)}</title></circle>'
            )
            parts.append(f'<text class="label" x="{x(p.file_bytes) + 6:.1f}" y="{y(_log(p)) - 5:.1f}">{html.escape(p.label)}</text>')
    p = picked.chosen
    parts.append(
        f'<path d="M{x(p.file_bytes):.1f} {y(_log(p)):.1f} m0 -8 l8 8 l-8 8 l-8 -8 z" fill="#0b6bcb"><title>{_words(p)}</title></path>'
    )
    return "\n".join([*parts, "</svg>"])


def _log(point: Point) -> float:
    return math.log10(max(point.kl, 1e-12))


def _words(point: Point) -> str:
    return html.escape(
        f"{point.label or 'picked'}: {size_in_words(point.file_bytes)}, {point.bits_per_weight:.3f} bits per weight, KL {point.kl:.3g}, "
        f"{point.tokens_per_second:.1f} tokens/s"
    )


def _points(points: Sequence[Point]) -> str:
    rows = ["<table><tr><th>type<th>size<th>bits per weight<th>KL<th>tokens/s"]
    for p in points:
        cells = (p.label or "picked", size_in_words(p.file_bytes), f"{p.bits_per_weight:.3f}", f"{p.kl:.5f}", f"{p.tokens_per_second:.1f}")
        rows.append(f"<tr{'' if p.label else ' class=picked'}><td>{'<td>'.join(map(html.escape, cells))}")
    return "\n".join([*rows, "</table>"])


def _types(picked: Pick) -> str:
    """A row for each layer, a column for each kind of tensor, coloured by bits; tensors outside layers below."""
    named = {name: _place(name) for name in picked.formats}
    kinds = list(dict.fromkeys(kind for layer, kind in named.values() if layer >= 0))
    by_place = {place: name for name, place in named.items()}
    rows = ["<table class=types><tr><th>layer" + "".join(f"<th>{html.escape(kind)}" for kind in kinds)]
    for layer in sorted({layer for layer, _ in named.values() if layer >= 0}):
        cells = (_type(picked, by_place.get((layer, kind))) for kind in kinds)
        rows.append(f"<tr><td>{layer}{''.join(cells)}")
    rows += [f"<tr><td>{html.escape(kind)}{_type(picked, by_place[layer, kind])}" for layer, kind in named.values() if layer < 0]
    return "\n".join([*rows, "</table>"])


def _place(name: str) -> tuple[int, str]:
    parts = name.split(".")
    inside = parts[0] == "blk" and len(parts) > 2 and parts[1].isdecimal()
    return (int(parts[1]), parts[2]) if inside else (-1, name)


def _type(picked: Pick, name: str | None) -> str:
    if name is None:
        return "<td>"
    format = picked.formats[name]
    block = BLOCKS[format]
    bits = 8 * block.block_bytes / block.block_values
    light = max(32, min(96, 100 - 8 * (bits - 2)))
    title = f"KL {picked.sensitivities[name].kl(format):.2g}"
    colour = "#fff" if light < 60 else "#222"
    return f'<td style="background:hsl(212 60% {light:.0f}%);color:{colour}" title="{title}">{format}'
