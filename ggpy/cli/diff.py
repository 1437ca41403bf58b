"""ggpy-diff: what differs between two GGUF files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ggpy.cli.common import FOUND, command_parser, positive_int, run_command
from ggpy.cli.progress import shown_progress
from ggpy.errors import printable

if TYPE_CHECKING:
    from ggpy.xray.diff import Differences, TensorDifference

_TOP = 40


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-diff`."""
    parser = command_parser(
        "ggpy-diff",
        "Show what differs between two GGUF files: keys, tokens, tensors, and how far B's weights are from A's, in the words of\n"
        "ggpy-xray; with --base, which is nearer to what both were made from. Padding and the order of keys do not count.",
        epilog="exit code: 0 no differences, 3 some, 1 an error",
    )
    parser.add_argument("a", metavar="A", help="a .gguf file")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument(
        "--base", metavar="MODEL", help="what both were made from: a checkpoint directory, a .gguf file or a Hub repository"
    )
    parser.add_argument("--imatrix", metavar="FILE", help="an importance matrix: errors count by the inputs they meet")
    parser.add_argument("--top", metavar="N", type=positive_int, default=_TOP, help="tensors to list (default: %(default)s)")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads that compare (default: all this process may use)")
    parser.add_argument("--json", action="store_true", help="write the differences as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_diff, build_parser().parse_args(argv))


def _diff(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ggpy.converter.hub import find_source
    from ggpy.converter.options import Options
    from ggpy.xray.diff import diff

    with shown_progress() as (on_progress, say):
        base = find_source(args.base, lambda line: say(f"{args.prog}: {line}")) if args.base else None
        imatrix = Path(args.imatrix) if args.imatrix else None
        workers = Options(threads=args.threads).workers
        found = diff(Path(args.a), Path(args.b), base, imatrix, threads=workers, on_progress=on_progress)
    if args.json:
        json.dump(found.to_json(), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        _show(found, args.top)
    return FOUND if found else 0


def _show(found: Differences, top: int) -> None:
    from rich.text import Text

    from ggpy.cli.xray_tables import console, table
    from ggpy.xray.diff_words import diff_sentences

    out = console()
    out.print(Text(f"A: {printable(found.a)}", "bold"))
    out.print(Text(f"B: {printable(found.b)}", "bold"))
    for sentence in diff_sentences(found):
        out.print(Text(f"• {sentence}"))
    for key in found.keys:
        a, b = ("missing" if value is None else value for value in (key.a, key.b))
        out.print(Text(f"key {key.key}: {a} | {b}"), soft_wrap=True)
    if found.tensors:
        ranked, what = found.ranked, "output error" if found.imatrix else "error"
        more = f", {top} of {len(ranked)} (--top for more)" if len(ranked) > top else ""
        columns = [
            "tensor",
            "A",
            "B",
            "bits A",
            "bits B",
            "B − A",
            "dB",
            "max",
            *((f"A's {what}", f"B's {what}", "nearer") if found.base else ()),
        ]
        title = f"tensors that differ, those farthest apart first{more}"
        out.print()
        out.print(table(title, columns, (_row(tensor, found) for tensor in ranked[:top]), 3))
    if not found:
        print("no differences")


def _row(tensor: TensorDifference, found: Differences) -> list[str]:
    from ggpy.xray.diff_words import shown_gain
    from ggpy.xray.words import percent

    row = [printable(tensor.name.removesuffix(".weight"), 40), tensor.a or "missing", tensor.b or "missing"]
    if tensor.a and tensor.b and tensor.a.partition(" ")[2] == tensor.b.partition(" ")[2]:
        row[2] = tensor.b.partition(" ")[0]
    row += [f"{bits:.3f}" if side else "" for bits, side in zip(tensor.bits, (tensor.a, tensor.b), strict=True)]
    error = tensor.error
    row += ["", "", ""] if error is None else [percent(error.relative_rmse), f"{error.snr:.1f}", f"{error.max_error:.4g}"]
    if found.base is None:
        return row
    if tensor.base_errors is None:
        return [*row, "", "", ""]
    both = (e.relative_rmse if e.output_error is None else e.output_error for e in tensor.base_errors)
    return [*row, *map(percent, both), shown_gain(tensor)]
