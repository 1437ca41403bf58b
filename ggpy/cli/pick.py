"""ggpy-pick: which type for which tensor, so that a file keeps a size, a speed or a quality."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, positive_int, run_command
from ggpy.errors import GGPyError, printable

if TYPE_CHECKING:
    from ggpy.converter.options import Options
    from ggpy.picker.choice import Pick, Target

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-pick`."""
    parser = command_parser(
        "ggpy-pick",
        "Measure how much every tensor of a model matters and how fast every format is on this machine, and show what types of single "
        "tensors keep a target best. Without a target: at the size of Q4_K_M. ggpy-convert takes the same targets, and converts.",
    )
    parser.add_argument("src", metavar="SRC", help="a checkpoint directory, a .gguf file, or a Hub repository")
    add_targets(parser)
    parser.add_argument("--imatrix", metavar="FILE", help="an importance matrix that the conversion will have, too")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads to measure with, and for (default: all available)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every tensor's format and what was measured")
    return parser


def add_targets(group: argparse._ActionsContainer) -> None:
    """The options that say what a file must keep."""
    group.add_argument("--target-size", type=_size, metavar="SIZE", help="largest file, such as 3.5G (10^9 bytes), 900M or 4GiB")
    group.add_argument("--target-bpw", type=_positive, metavar="BITS", help="most bits per weight, all tensors counted")
    group.add_argument("--min-tps", type=_positive, metavar="N", help="tokens per second to decode on this machine, at the least")
    group.add_argument("--max-kl", type=_positive, metavar="NATS", help="largest mean KL divergence from the source per token, as measured")
    group.add_argument("--pick-text", type=Path, metavar="FILE", help="the text to measure KL divergence on (default: a bundled one)")
    group.add_argument("--front", type=Path, metavar="FILE", help="write sizes, KL divergences and the types found as one HTML page")


def target_of(args: argparse.Namespace) -> Target | None:
    """What the options ask for; None where they ask for nothing."""
    if all(value is None for value in (args.target_size, args.target_bpw, args.min_tps, args.max_kl)):
        return None
    from ggpy.picker.choice import Target

    return Target(args.target_size, args.target_bpw, args.min_tps, args.max_kl)


def pick_types(source: Path, target: Target, options: Options, args: argparse.Namespace) -> Pick:
    """Measure and choose; write the page where one is asked for."""
    from ggpy.picker.page import page
    from ggpy.picker.pick import pick

    if args.front is not None and args.front.exists() and not getattr(args, "force", False):
        raise GGPyError(f"{printable(args.front)}: exists already; name another page")
    text = args.pick_text.read_bytes().decode("utf-8", "replace") if args.pick_text else None
    picked = pick(source, target, options, text=text)
    if args.front is not None:
        args.front.write_text(page(picked), encoding="utf-8")
    return picked


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_pick, build_parser().parse_args(argv))


def _pick(args: argparse.Namespace) -> None:
    from ggpy.cli.progress import shown_progress
    from ggpy.converter.hub import find_source
    from ggpy.converter.options import Options
    from ggpy.picker.choice import Target

    source = find_source(args.src, lambda line: print(f"{args.prog}: {printable(line, 2000)}", file=sys.stderr, flush=True))
    with shown_progress() as (on_progress, _):
        options = Options(imatrix=Path(args.imatrix) if args.imatrix else None, threads=args.threads, on_progress=on_progress)
        picked = pick_types(source, target_of(args) or Target(), options, args)
    print(json.dumps(picked.to_json(), indent=2, allow_nan=False) if args.json else picked)


def _size(text: str) -> int:
    """An argument type: a number of bytes, with a unit."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMGT]I?|)B?", text.strip().upper())
    value = float(found[1]) * _UNITS[found[2]] if found else math.nan
    if found is None or not 1 <= value < 2**60:
        raise argparse.ArgumentTypeError(f"'{printable(text, 40)}' is not a size such as 3.5G, 900M or 4GiB")
    return int(value)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{printable(text, 40)}' is not a number above 0")
    return value
