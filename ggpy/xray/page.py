"""An examination as one HTML page that needs nothing else: no script, font or picture, and no string from the file unescaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ggpy.gguf.atomic import AtomicFile
from ggpy.xray import plots
from ggpy.xray.record import TensorXray, Xray, decibels
from ggpy.xray.style import STYLE
from ggpy.xray.svg import text
from ggpy.xray.words import percent, sentences

RANKED, CLOSE, LISTED = 24, 6, 1500  # tensors that are ranked, looked at closely, listed
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(found: Xray) -> str:
    """The whole page; under 3 MB, however many tensors a file has."""
    compared = found.base is not None
    name = found.path.name
    size = f"{found.n_values / 1e6:.1f} M weights, {found.bits_per_weight:.3f} bits per weight"
    about = ", ".join(part for part in (found.architecture, found.name, size) if part)
    against = ""
    if found.base is not None:
        weighted = f", errors weighted by <b>{text(found.imatrix.name)}</b>" if found.imatrix else ""
        against = f"<p>Against <b>{text(found.base.name)}</b>{weighted}.</p>"
    parts = [
        f"<header><h1>{text(name)}</h1><p>{text(about)}</p>{against}</header>",
        "<main>",
        section("Findings", f"<ul>{''.join(f'<li>{text(line, 2000)}</li>' for line in sentences(found))}</ul>"),
        *(_compared(found) if compared else _alone(found)),
        section("All tensors", _table(found)),
        "</main>",
        f"<footer>{_definitions(found)}</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{text(name, 80)} under ggpy xray</title><style>{STYLE}</style></head>\n'
        f"<body>{chr(10).join(parts)}</body></html>\n"
    )


def section(title: str, inside: str, note: str = "") -> str:
    """A part of the page; nothing where nothing is in it. `title` and `note` are ours, plain text."""
    said = f'<p class="note">{text(note, 600)}</p>' if note else ""
    return f"<section><h2>{text(title)}</h2>{said}{inside}</section>" if inside else ""


def _compared(found: Xray) -> Iterable[str]:
    weighted = found.imatrix is not None
    error = "output error" if weighted else "relative error"
    figure = lambda t: (t.error.output_error if weighted else t.error.relative_rmse) if t.error else None  # noqa: E731
    note = "Each square is a tensor, its figure in percent."
    yield section(f"Where: {error}", plots.heatmap(found.tensors, figure, error.capitalize(), percent), note)
    share = plots.heatmap(found.tensors, lambda t: t.error.share if t.error else None, "Share of the loss", percent)
    yield section("Where: share of the loss", share, "What a tensor adds to the squared error of all, by its size as well as by its error.")
    ranked = [t for t in found.by_loss if t.error and not t.error.equal]
    note = "Right: the relative errors of blocks, a square at their median, a bar to the 99th percentile; a line at the tensor's own."
    yield section(f"Most of the loss: {min(RANKED, len(ranked))} of {len(ranked)} tensors", plots.ranking(ranked[:RANKED]), note)
    yield from _close(_various(ranked))


def _alone(found: Xray) -> Iterable[str]:
    largest = lambda t: max(t.columns.largest, t.rows.largest) if t.columns and t.rows else None  # noqa: E731
    title = "Largest row or column over the median"
    yield section(
        "Where: outlier channels", plots.heatmap(found.tensors, largest, title, lambda value: f"{value:.2g} ×"), f"{title}, by magnitude."
    )
    matrices = [t for t in found.tensors if t.columns and t.rows]
    yield from _close(_various(sorted(matrices, key=lambda t: -(largest(t) or 0.0))))


def _various(ranked: Sequence[TensorXray]) -> list[TensorXray]:
    """The first few, at most two of a kind."""
    kinds: Counter[str] = Counter()
    chosen = []
    for tensor in ranked:
        kinds[tensor.kind] += 1
        if kinds[tensor.kind] <= 2 and len(chosen) < CLOSE:
            chosen.append(tensor)
    return chosen


def _close(tensors: Sequence[TensorXray]) -> Iterable[str]:
    for tensor in tensors:
        error, quants = tensor.error, tensor.quants
        pictures = [plots.block_errors(error)] if error else []
        captions = ["Blocks by relative error"] if error else []
        if quants:
            pictures += [plots.scales(quants), plots.levels(quants)]
            captions += [f"Sub-blocks by scale ({quants.zero_scales} are 0)", "Weights by level"]
        figures = "".join(f"<figure>{p}<figcaption>{text(c)}</figcaption></figure>" for p, c in zip(pictures, captions, strict=True) if p)
        wide = []
        for channels, noun in ((tensor.columns, "column"), (tensor.rows, "row")):
            if channels and (picture := plots.profile(channels, noun)):
                legend = "".join(
                    f'<span class="key {kind}">{kind}</span>' for kind in ("magnitude", "error", "input") if getattr(channels, kind)
                )
                wide.append(f"<figure>{picture}<figcaption>{noun.capitalize()}s, as times the median: {legend}</figcaption></figure>")
        yield (
            f"<section><h2>{text(tensor.name)}</h2><p>{text(_facts(tensor))}</p>"
            f'<div class="three">{figures}</div>{"".join(wide)}{_worst(tensor)}</section>'
        )


def _facts(tensor: TensorXray) -> str:
    facts = [f"{tensor.format}, {' × '.join(map(str, tensor.shape))}, {tensor.bits_per_weight:.3f} bits per weight"]
    if tensor.error:
        facts.append(f"error {percent(tensor.error.relative_rmse)}, {tensor.error.snr:.1f} dB")
        facts += [f"output error {percent(tensor.error.output_error)}"] if tensor.error.output_error is not None else []
        facts.append(f"largest {tensor.error.max_error:.4g} in row {tensor.error.max_at[0]}, column {tensor.error.max_at[1]}")
    if tensor.quants and tensor.quants.entropy is not None:
        facts.append(f"quants carry {tensor.quants.entropy:.2f} of {tensor.quants.level_bits:.2f} bits")
    if tensor.quants and tensor.quants.clipped:
        facts.append(f"{percent(tensor.quants.clipped / tensor.n_values)} of the weights clipped")
    return "; ".join(facts) + "."


def _worst(tensor: TensorXray) -> str:
    if not tensor.error or not tensor.error.worst:
        return ""
    rows = [(f"{b.row}", f"{b.block}", f"{b.peak:.4g}", f"{b.max_error:.4g}", percent(b.relative)) for b in tensor.error.worst]
    return table("Worst blocks", ("row", "block", "peak", "max error", "error"), rows, 0)


def _table(found: Xray) -> str:
    ranked = found.by_loss + [t for t in found.tensors if t.error is None]
    heads = ["tensor", "type", "shape", "bits/weight"]
    if found.base is not None:
        heads += [
            "error",
            "dB",
            *(("output error",) if found.imatrix else ()),
            "cosine",
            "block p99",
            "max error",
            "clipped",
            "of the loss",
        ]
    else:
        heads += ["rms", "peak", "entropy"]
    rows = [_row(found, tensor) for tensor in ranked[:LISTED]]
    more = f"<p>… and {len(ranked) - LISTED} more.</p>" if len(ranked) > LISTED else ""
    opened = " open" if len(ranked) <= 60 else ""
    return f"<details{opened}><summary>{len(ranked)} tensors</summary>{table('Tensors', heads, rows, 3)}{more}</details>"


def _row(found: Xray, tensor: TensorXray) -> list[str]:
    row = [tensor.name, tensor.format, " × ".join(map(str, tensor.shape)), f"{tensor.bits_per_weight:.3f}"]
    quants, error = tensor.quants, tensor.error
    if found.base is None:
        entropy = f"{quants.entropy:.2f} of {quants.level_bits:.2f}" if quants and quants.entropy is not None else ""
        return [*row, f"{tensor.rms:.4g}", f"{tensor.peak:.4g}", entropy]
    if error is None:
        return [*row, tensor.why or "", *[""] * (7 if found.imatrix else 6)]
    row += [percent(error.relative_rmse), f"{decibels(error.relative_rmse):.1f}"]
    if found.imatrix:
        row.append("" if error.output_error is None else percent(error.output_error))
    clipped = quants.clipped if quants and quants.clipped else 0
    row += [f"{error.cosine:.6f}", percent(error.p99), f"{error.max_error:.4g}", percent(clipped / tensor.n_values) if clipped else ""]
    return [*row, "" if error.share is None else percent(error.share)]


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A table, the first `left` columns to the left; cells are plain text."""
    side = lambda i: ' class="l"' if i < left else ""  # noqa: E731
    head = "".join(f'<th scope="col"{side(i)}>{text(name)}</th>' for i, name in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td{side(i)}>{text(cell)}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _definitions(found: Xray) -> str:
    lines = ["Blocks are those of each tensor's format, of 32 weights for floats."]
    if found.base is not None:
        loss = (
            "Σ e² E[x²], what the errors e do to the squared outputs of a token whose inputs x are not correlated"
            if found.imatrix
            else "Σ e²"
        )
        lines.insert(0, f"Error: √(Σ e² / Σ w²), w the base's weights, e what the file's differ by; dB: −20 log₁₀ of it. Loss: {loss}.")
    lines.append(f"Rows and columns are outliers from {found.factor:g} times the median on. Made by ggpy xray in {found.seconds:.1f} s.")
    return "".join(f"<p>{text(line, 600)}</p>" for line in lines)


def write_page(found: Xray, path: Path) -> None:
    """Write the page; what was there before is replaced at once, or stays. GGPyError where it cannot be written."""
    data = page(found).encode("utf-8", "backslashreplace")
    with AtomicFile(path, force=True) as file:
        file.resize(len(data))
        file.write_at(0, data)
