"""An examination on a terminal: sentences, then tables of kinds, tensors and blocks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ggpy.errors import printable

if TYPE_CHECKING:
    from ggpy.xray import TensorXray, Xray

_PIPE_WIDTH = 160
_BLOCKS = 6


def console() -> Console:
    """stdout, wide where it is no terminal; what is printed is never taken for markup."""
    return Console(file=sys.stdout, markup=False, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def show(found: Xray, top: int) -> None:
    """Print what was found, of tensors the `top` first."""
    from ggpy.xray.words import sentences

    out = console()
    out.print(Text(_headline(found), "bold"))
    if found.base:
        out.print(Text(f"against {printable(found.base)}" + (f", weighted by {printable(found.imatrix)}" if found.imatrix else ""), "dim"))
    for sentence in sentences(found):
        out.print(Text(f"• {sentence}"))
    out.print()
    out.print(_kinds(found))
    out.print()
    out.print(_tensors(found, top))
    if blocks := _blocks(found):
        out.print()
        out.print(blocks)


def _headline(found: Xray) -> str:
    parts = [printable(found.path.name, 100), printable(found.architecture, 40), printable(found.name, 80)]
    size = f"{found.n_values / 1e6:.1f} M weights", f"{found.bits_per_weight:.3f} bits per weight"
    return ", ".join(part for part in (*parts, *size) if part)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> Table:
    """Aligned columns, the first `left` to the left; the last gives way where there is no room."""
    rows = [*rows]
    widths = [max(len(cells[i]) for cells in (columns, *rows)) for i in range(len(columns))]
    made = Table(box=None, padding=(0, 2, 0, 0), title=Text(title, "bold"), title_justify="left", header_style="dim", pad_edge=False)
    for i, name in enumerate(columns):
        made.add_column(
            Text(name),
            justify="left" if i < left else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=widths[i] if i + 1 < len(columns) else None,
        )
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _kinds(found: Xray) -> Table:
    from ggpy.xray.record import decibels, pooled
    from ggpy.xray.words import by_kind, percent

    rows, whole = [], found.n_values
    for kind, tensors in by_kind(found.tensors).items():
        weights, error = sum(t.n_values for t in tensors), pooled(tensors)
        shares = [t.error.share for t in tensors if t.error and t.error.share is not None]
        types = ", ".join(dict.fromkeys(t.format for t in tensors))
        row = [printable(kind, 40), str(len(tensors)), types, f"{8 * sum(t.n_bytes for t in tensors) / max(1, weights):.3f}"]
        row.append(percent(weights / whole if whole else 0.0))
        rows.append([*row, *((*_error(error, decibels), percent(sum(shares)) if shares else "") if found.base else ())])
    columns = ["kind", "tensors", "types", "bits/weight", "of the weights"]
    return table("by kind", [*columns, *(("error", "dB", "of the loss") if found.base else ())], rows, 3)


def _error(error: float | None, decibels) -> tuple[str, str]:
    from ggpy.xray.words import percent

    if error is None:
        return "", ""
    return ("0", "∞") if error == 0 else (percent(error), f"{decibels(error):.1f}")


def _tensors(found: Xray, top: int) -> Table:
    ranked = found.by_loss if found.base else by_outliers(found.tensors)
    shown = ranked[:top]
    more = f", {len(shown)} of {len(ranked)} (--top for more)" if len(ranked) > len(shown) else ""
    if not found.base:
        columns = ["tensor", "type", "shape", "bits/weight", "rms", "peak/rms", "entropy", "column", "row"]
        return table(f"tensors, the largest channels first{more}", columns, map(_alone, shown), 3)
    weighted = found.imatrix is not None
    columns = ["tensor", "type", "bits/weight", "error", "dB", *(("output error",) if weighted else ())]
    columns += ["cosine", "block p50", "block p99", "max error", "clipped", "of the loss", "stands out"]
    title = f"tensors, the largest loss first{more}"
    made = table(title, columns, (_compared(tensor, weighted) for tensor in shown), 2)
    made.columns[-1].justify = "left"
    return made


def _compared(tensor: TensorXray, weighted: bool) -> list[str]:
    from ggpy.xray.record import decibels
    from ggpy.xray.words import percent

    error = tensor.error
    assert error is not None
    row = [_name(tensor), tensor.format, f"{tensor.bits_per_weight:.3f}", *_error(error.relative_rmse, decibels)]
    if weighted:
        row.append("" if error.output_error is None else percent(error.output_error))
    clipped = tensor.quants.clipped if tensor.quants and tensor.quants.clipped else 0
    row += [f"{error.cosine:.6f}", percent(error.p50), percent(error.p99), f"{error.max_error:.4g}"]
    row += [percent(clipped / tensor.n_values) if clipped else "", "" if error.share is None else percent(error.share)]
    return [*row, _standing_out(tensor)]


def _alone(tensor: TensorXray) -> list[str]:
    quants = tensor.quants
    entropy = f"{quants.entropy:.2f} of {quants.level_bits:.2f}" if quants and quants.entropy is not None else ""
    if quants and quants.byte_entropy is not None:
        entropy = f"{quants.byte_entropy:.2f} of 8"
    shape = " × ".join(map(str, tensor.shape))
    row = [_name(tensor), tensor.format, shape, f"{tensor.bits_per_weight:.3f}", f"{tensor.rms:.4g}"]
    row += [f"{tensor.peak / tensor.rms:.1f}" if tensor.rms > 0 and math.isfinite(tensor.rms) else "", entropy]
    for channels in (tensor.columns, tensor.rows):
        largest = channels.named("magnitude")[:1] if channels else []
        row.append(f"{largest[0].index} ({largest[0].times:.3g} ×)" if largest else f"{channels.largest:.2g} ×" if channels else "")
    return row


def by_outliers(tensors: Sequence[TensorXray]) -> list[TensorXray]:
    """Matrices by how far their largest channel stands out."""
    return sorted((t for t in tensors if t.columns and t.rows), key=lambda t: -max(s.largest for s in (t.columns, t.rows) if s))


def _standing_out(tensor: TensorXray) -> str:
    found = []
    for channels, noun in ((tensor.columns, "column"), (tensor.rows, "row")):
        firsts = [o for what in ("magnitude", "error", "input") for o in (channels.named(what)[:1] if channels else [])]
        for index in dict.fromkeys(o.index for o in firsts):
            found.append(f"{noun} {index}: " + ", ".join(f"{o.what} {o.times:.3g} ×" for o in firsts if o.index == index))
    return "; ".join(found)


def _blocks(found: Xray) -> Table | None:
    """The blocks that lose most of all."""
    from ggpy.xray.words import percent

    worst = [(block, tensor) for tensor in found.compared if tensor.error and tensor.error.share for block in tensor.error.worst]
    worst = sorted(worst, key=lambda pair: -pair[0].loss)[:_BLOCKS]
    if not worst:
        return None
    whole = sum(tensor.error.loss or 0.0 for tensor in found.compared if tensor.error and tensor.error.share)
    rows = []
    for block, tensor in worst:
        place = str(block.row), f"{block.block} ({block.block * tensor.block_values}…)"
        figures = f"{block.peak:.4g}", f"{block.max_error:.4g}", percent(block.relative), percent(block.loss / whole)
        rows.append((_name(tensor), *place, *figures))
    return table("worst blocks", ["tensor", "row", "block (columns)", "peak", "max error", "error", "of the loss"], rows, 1)


def _name(tensor: TensorXray) -> str:
    return printable(tensor.name.removesuffix(".weight"), 48)
