"""ggpy-diff: what differs between two GGUF files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ggpy.cli.common import FOUND, command_parser, run_command


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-diff`."""
    parser = command_parser(
        "ggpy-diff",
        "Show what differs between two GGUF files: keys, tokens, tensors, and how far B's weights are from A's (relative RMSE, largest\n"
        "error). Padding and the order of keys do not count.",
        epilog="exit code: 0 no differences, 3 some, 1 an error",
    )
    parser.add_argument("a", metavar="A", help="a .gguf file")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--json", action="store_true", help="write the differences as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_diff, build_parser().parse_args(argv))


def _diff(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ggpy.mend.diff import diff

    found = diff(Path(args.a), Path(args.b))
    if args.json:
        json.dump(found.to_json(), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        print(found)
    return FOUND if found else 0
