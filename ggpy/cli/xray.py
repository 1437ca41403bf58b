"""ggpy-xray: where a quantized file's error is, by tensor, block and channel."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ggpy.cli.common import command_parser, positive_int, real_number, run_command
from ggpy.cli.progress import shown_progress
from ggpy.errors import printable

_TOP = 20


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-xray`."""
    parser = command_parser(
        "ggpy-xray",
        "Show what quantization did to the weights in FILE: with --base the error of every tensor, its worst blocks, rows and columns,\n"
        "and which tensors carry the loss; without, what the file shows by itself: scales, levels, entropy, outliers, NaN.",
    )
    parser.add_argument("file", metavar="FILE", help="a .gguf file, or any part of a split one")
    parser.add_argument("--base", metavar="MODEL", help="what FILE was made from: a checkpoint directory, a .gguf file or a Hub repository")
    parser.add_argument(
        "--imatrix", metavar="FILE", help="an importance matrix: errors count by the inputs they meet, as errors of a tensor's outputs"
    )
    parser.add_argument(
        "--outlier",
        metavar="K",
        type=real_number(1),
        default=6.0,
        help="name rows and columns whose magnitude, error or input is K times the median one's (default: %(default)g)",
    )
    parser.add_argument("--top", metavar="N", type=positive_int, default=_TOP, help="tensors to list (default: %(default)s)")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads that compare (default: all this process may use)")
    parser.add_argument("--html", metavar="OUT", help="write a page with plots, one file that needs nothing else; replaces what is there")
    parser.add_argument("--json", action="store_true", help="write everything as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_xray, build_parser().parse_args(argv))


def _xray(args: argparse.Namespace) -> None:
    from ggpy.cli.xray_tables import show
    from ggpy.converter.hub import find_source
    from ggpy.converter.options import Options
    from ggpy.xray import xray

    with shown_progress() as (on_progress, say):
        base = find_source(args.base, lambda line: say(f"{args.prog}: {line}")) if args.base else None
        found = xray(
            Path(args.file),
            base,
            Path(args.imatrix) if args.imatrix else None,
            threads=Options(threads=args.threads).workers,
            factor=args.outlier,
            on_progress=on_progress,
        )
    if args.html:
        from ggpy.xray.page import write_page

        write_page(found, Path(args.html))
        print(f"{args.prog}: wrote {printable(args.html)}", file=sys.stderr)
    if args.json:
        json.dump(found.to_json(), sys.stdout, allow_nan=False)
        print()
    else:
        show(found, args.top)
