"""ggpy-verify: is a converted file still what it was when it was certified?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from ggpy.cli.common import command_parser, positive_int, run_command


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-verify`."""
    parser = command_parser(
        "ggpy-verify",
        "Check a converted file: its tensors against the checksums it was written with, that all numbers are finite, and that the text of\n"
        "its certificate gives what it gave.",
    )
    parser.add_argument("file", metavar="FILE", help="a .gguf file")
    parser.add_argument(
        "--source", metavar="SRC", help="what it was made from, a checkpoint directory or a .gguf file: make the certificate again"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads that read (default: all this process may use)")
    parser.add_argument("--json", action="store_true", help="write what was found as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_verify, build_parser().parse_args(argv))


def _verify(args: argparse.Namespace) -> None:
    from pathlib import Path

    from ggpy.mend.verify import verify
    from ggpy.runtime.host import available_threads

    found = verify(Path(args.file), args.threads or available_threads(), Path(args.source) if args.source else None)
    if args.json:
        json.dump(asdict(found) | {"path": str(found.path)}, sys.stdout, indent=2, allow_nan=False)
        print()
        return
    print(found)
