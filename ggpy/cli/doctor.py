"""ggpy-doctor: what is wrong with a GGUF file, and what to do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from ggpy.cli.common import FOUND, command_parser, positive_int, run_command


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-doctor`."""
    parser = command_parser(
        "ggpy-doctor",
        "Look for what makes a GGUF file fail or talk nonsense: tokenizer, chat template, label, weights that are no numbers, a tail that\n"
        "is missing. One line for each finding, with what to do.",
        epilog="exit code: 0 nothing wrong (there may be notes), 3 something is, 1 the file cannot be opened",
    )
    parser.add_argument("file", metavar="FILE", help="a .gguf file; it is read whole, and nothing is written")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads that read (default: all this process may use)")
    parser.add_argument("--json", action="store_true", help="write the findings as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_doctor, build_parser().parse_args(argv))


def _doctor(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ggpy.mend.doctor import examine
    from ggpy.runtime.host import available_threads

    found = examine(Path(args.file), args.threads or available_threads())
    if args.json:
        findings = [asdict(finding) for finding in found.findings]
        json.dump({"file": str(found.path), "healthy": found.healthy, "findings": findings}, sys.stdout, indent=2)
        print()
    else:
        print(found)
    return 0 if found.healthy else FOUND
