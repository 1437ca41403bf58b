"""ggpy-inspect: metadata, tensors, sizes and bits per weight of a GGUF file."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ggpy.cli.common import command_parser, run_command, starting
from ggpy.errors import GGUFError, printable
from ggpy.gguf import GGUFFile, Metadata, Tensor, open_gguf
from ggpy.gguf.metadata import Entry
from ggpy.gguf.strings import Strings
from ggpy.gguf.summary import Share, by_format, by_kind, total

_SHOWN_ELEMENTS = 8
_PIPE_WIDTH = 160


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-inspect`."""
    parser = command_parser("ggpy-inspect", "Show metadata, tensors, sizes and bits per weight of a GGUF file.")
    parser.add_argument(
        "file", metavar="FILE", help="a .gguf file, or any part of a split one; only heads are read, and nothing is written"
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor: name, shape, type, size, offset")
    parser.add_argument("--json", action="store_true", help="write everything, tensors and whole arrays included, as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(inspect, build_parser().parse_args(argv))


def inspect(args: argparse.Namespace) -> None:
    """Show `args.file` on stdout. Raises GGUFError for a file that is not legal GGUF."""
    with starting(), _open(args.file, args.prog) as file:
        if args.json:
            json.dump(to_json(file), sys.stdout, indent=2, allow_nan=False)
            print()
        else:
            print("\n".join(describe(file, tensors=args.tensors, width=_width())))


def _open(path: str, prog: str) -> GGUFFile:
    """The model in the file; a part whose other parts are not at hand is opened alone, which is said on stderr."""
    try:
        return open_gguf(path)
    except GGUFError as error:
        part = open_gguf(path, only_this_part=True)  # which fails as well where the part itself is at fault
        print(f"{prog}: {error}; shown is this part alone", file=sys.stderr)
        return part


def describe(file: GGUFFile, *, tensors: bool, width: int) -> list[str]:
    """The lines that show a file, values cut at `width` columns; `tensors`: list every tensor, too."""
    lines = [*_headline(file), "", f"metadata: {len(file.metadata)} keys"]
    lines += _columns((_key_row(key, entry) for key, entry in file.metadata.entries.items()), "<<<", width)
    members = list(file.tensors.values())
    for title, shares in (("type", by_format(members)), ("part", by_kind(members))):
        if shares and not _is_imatrix(file):
            header = (title, "tensors", "parameters", "size", "bits/weight", "of the size")
            lines += ["", *_columns([header, *(_share_row(share, total(members)) for share in shares)], "<>>>>>", width)]
    if tensors:
        header, rows = ("tensor", "shape", "type", "size", "offset"), list(map(_tensor_row, members))
        if len(file.paths) > 1:
            part_of = {path: f"{i + 1}" for i, path in enumerate(file.paths)}
            header, rows = (*header, "part"), [(*row, part_of[file.path_of(t.name)]) for row, t in zip(rows, members, strict=True)]
        lines += ["", *_columns([header, *rows], "<<<>>>"[: len(header)], width)]
    return lines


def to_json(file: GGUFFile) -> dict[str, Any]:
    """Everything but the weights, as values JSON can hold: NaN and infinities are strings, shapes are rows first."""
    members = list(file.tensors.values())
    return {
        "file": os.fspath(file.path),
        "files": [os.fspath(path) for path in file.paths],
        "version": file.version,
        "file_size": file.file_size,
        "alignment": file.alignment,
        "data_offset": file.data_offset,
        "architecture": _text(file.metadata, "general.architecture"),
        "context_length": _context(file.metadata),
        "parameters": total(members).n_values,
        "tensor_bytes": total(members).n_bytes,
        "bits_per_weight": total(members).bits_per_weight,
        "types": [_share_json(share, "type") for share in by_format(members)],
        "parts": [_share_json(share, "part") for share in by_kind(members)],
        "metadata": {key: {"type": entry.type_name, "value": _jsonable(entry.value)} for key, entry in file.metadata.entries.items()},
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "type": t.format.name, "bytes": t.n_bytes, "offset": t.offset} for t in members
        ],
    }


def _is_imatrix(file: GGUFFile) -> bool:
    return file.metadata.get("general.type") == "imatrix"


def _imatrix_headline(file: GGUFFile) -> list[str]:
    """Of an importance matrix: how many tensors it knows, and from how much text."""
    n_tensors = sum(name.endswith(".in_sum2") for name in file.tensors)
    chunks, tokens, datasets = (file.metadata.get(f"imatrix.{key}") for key in ("chunk_count", "chunk_size", "datasets"))
    model = [f"importance matrix of {n_tensors} tensors"]
    if isinstance(chunks, int) and isinstance(tokens, int):
        model.append(f"from {chunks} chunks of {tokens} tokens" if tokens else f"from {chunks} chunks")
    model += [f"of {name}" for name in list(datasets)[:1]] if isinstance(datasets, list) else []
    lines = ", ".join(printable(part, 80) for part in model), f"{_size(file.file_size)}, GGUF v{file.version}"
    return [printable(file.path, 1000), *(f"  {line}" for line in lines)]


def _headline(file: GGUFFile) -> list[str]:
    if _is_imatrix(file):
        return _imatrix_headline(file)
    members = file.tensors.values()
    weights, metadata = total(members), file.metadata
    model = [_text(metadata, "general.architecture"), _text(metadata, "general.name"), _parameters(weights.n_values) + " parameters"]
    context, part, parts = _context(metadata), metadata.get("split.no"), metadata.get("split.count")
    if context is not None:
        model.append(f"context {context}")
    if len(file.paths) > 1:
        model.append(f"{len(file.paths)} parts")
    elif isinstance(part, int) and isinstance(parts, int) and parts > 1:
        model.append(f"part {part + 1} of {parts}")
    layout = [_size(file.file_size), f"{weights.bits_per_weight:.2f} bits per weight", f"{len(members)} tensors", f"GGUF v{file.version}"]
    return [printable(file.path, 1000), "  " + ", ".join(printable(part, 80) for part in model if part), "  " + ", ".join(layout)]


def _text(metadata: Metadata, key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def _context(metadata: Metadata) -> int | None:
    value = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return value if isinstance(value, int) else None


def _key_row(key: str, entry: Entry) -> tuple[str, ...]:
    if entry.element is None:
        return printable(key, 80), entry.type_name, _scalar(entry.value)
    some = [*map(_scalar, entry.value[:_SHOWN_ELEMENTS]), *(["…"] if len(entry.value) > _SHOWN_ELEMENTS else [])]
    return printable(key, 80), f"{entry.element.name.lower()}[{len(entry.value)}]", ", ".join(some)


def _scalar(value: Any) -> str:
    if isinstance(value, bool | np.bool):
        return str(value).lower()
    if isinstance(value, str):
        return printable(value, 200)
    if isinstance(value, float | np.floating):
        return f"{value:.7g}"
    return f"[{len(value)} elements]" if isinstance(value, list | np.ndarray) else str(value)


def _share_row(share: Share, whole: Share) -> tuple[str, ...]:
    portion = share.n_bytes / whole.n_bytes if whole.n_bytes else 0.0
    counts = str(share.n_tensors), _parameters(share.n_values), _size(share.n_bytes)
    return share.label, *counts, f"{share.bits_per_weight:.2f}", f"{portion:.1%}"


def _share_json(share: Share, label: str) -> dict[str, Any]:
    return {
        label: share.label,
        "tensors": share.n_tensors,
        "parameters": share.n_values,
        "bytes": share.n_bytes,
        "bits_per_weight": share.bits_per_weight,
    }


def _tensor_row(tensor: Tensor) -> tuple[str, ...]:
    return printable(tensor.name, 64), " × ".join(map(str, tensor.shape)), tensor.format.name, _size(tensor.n_bytes), str(tensor.offset)


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | Strings):
        value = value.tolist()
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parameters(count: int) -> str:
    for unit, scale in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return str(count)


def _size(n_bytes: int) -> str:
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.2f} {unit}"
    return f"{n_bytes} B"


def _columns(rows: Iterable[Sequence[str]], alignments: str, width: int) -> list[str]:
    """Rows as lines with aligned columns (`<` left, `>` right), two spaces apart, indented, cut at `width`."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        ("  " + "  ".join(f"{cell:{side}{w}}" for cell, side, w in zip(row, alignments, widths, strict=True))).rstrip() for row in rows
    )
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH
