"""`ggpy-methods`: methods of quantization side by side, on some layers of a model."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, list_of, non_negative_int, run_command, whole_number

if TYPE_CHECKING:
    from ggpy.methods.compare import Comparison, Result


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-methods`."""
    parser = command_parser(
        "ggpy-methods",
        "Quantize some layers of MODEL by each of the methods people compare, and show bits per weight, error and time.\n"
        "Nothing is written. docs/quantization.md explains the methods.",
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint directory, a Hub repository (owner/model), or a GGUF file")
    parser.add_argument("--layers", metavar="N[,N…]", type=list_of(non_negative_int), help="layers (default: first, middle, last)")
    parser.add_argument("--tensors", metavar="NAME[,NAME…]", help="parts of tensor names, as ffn_down (default: all linear layers)")
    parser.add_argument("--methods", metavar="NAME[,NAME…]", help="parts of methods' names, as gptq (default: all methods)")
    parser.add_argument("--text", metavar="FILE", type=Path, help="text to calibrate on, UTF-8 (default: the help pages of Python)")
    parser.add_argument("--held-out", metavar="FILE", type=Path, help="text to judge on (default: the other half of the first)")
    parser.add_argument(
        "--tokens", metavar="N", type=whole_number(256), default=8192, help="tokens to calibrate on; half as many judge (default 8192)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, every matrix on its own")
    return parser


def compare_methods(args: argparse.Namespace) -> None:
    """Compare what `args` names; the table on stdout, progress on stderr."""
    from ggpy.cli.status import Status
    from ggpy.converter.hub import find_source
    from ggpy.methods.compare import compare_model

    status = Status(args.prog)
    text, held_out = read_texts(args.text, args.held_out)
    methods, found = choose_methods(args.methods), 0

    def show(result: Result) -> None:
        nonlocal found
        found += 1
        status.show(f"{found}: {result.matrix} {result.method}, error {result.output_error:.4f}, {result.seconds:.1f} s")

    try:
        comparison = compare_model(
            find_source(args.model, status.say),
            text,
            held_out,
            layers=args.layers,
            tensors=args.tensors.split(",") if args.tensors else (),
            methods=methods,
            tokens=args.tokens,
            on_result=show,
        )
    finally:
        status.clear()
    print(json.dumps(as_json(comparison)) if args.json else as_text(comparison))


def read_texts(text: Path | None, held_out: Path | None) -> tuple[str, str]:
    """What to calibrate and what to judge on; both from one text where only one is given."""
    if text is None:
        from pydoc_data import topics  # prose, grammar and code, with every Python

        whole = "\n\n".join(topics.topics.values())
    else:
        whole = text.read_bytes().decode("utf-8", "replace")
    if held_out is not None:
        return whole, held_out.read_bytes().decode("utf-8", "replace")
    middle = len(whole) // 2
    return whole[:middle], whole[middle:]


def choose_methods(parts: str | None):
    """The methods whose names contain one of the `parts`, separated by commas; all without any. GGPyError for a part that none contains."""
    from ggpy.errors import GGPyError, printable
    from ggpy.methods import METHODS

    if parts is None:
        return METHODS
    wanted = [part.strip().lower() for part in parts.split(",")]
    for part in wanted:
        if not any(part in name.lower() for name in METHODS):
            raise GGPyError(f"--methods {printable(part, 40)}: expected a part of one of {', '.join(METHODS)}")
    return {name: method for name, method in METHODS.items() if any(part in name.lower() for part in wanted)}


def as_json(found: Comparison) -> dict[str, object]:
    """Every result, and their summaries by length of rows."""
    return {
        "model": found.model,
        "layers": list(found.layers),
        "calibration_tokens": found.calibration_tokens,
        "held_out_tokens": found.held_out_tokens,
        "summaries": [dataclasses.asdict(summary) for summary in found.summaries()],
        "results": [dataclasses.asdict(result) for result in found.results],
        "left_out": [{"method": method, "cols": cols, "why": why} for (method, cols), why in found.left_out.items()],
    }


def as_text(found: Comparison) -> str:
    """A table for each length of rows, the least output error first."""
    layers = ", ".join(map(str, found.layers))
    tokens = f"{found.calibration_tokens} tokens to calibrate on, errors over {found.held_out_tokens} others"
    lines = [f"layers {layers} of {found.model}: {tokens}"]
    summaries = found.summaries()
    width = max(len(summary.method) for summary in summaries)
    for cols in dict.fromkeys(summary.cols for summary in summaries):
        table = [summary for summary in summaries if summary.cols == cols]
        matrices = max(summary.matrices for summary in table)
        lines += ["", f"{matrices} {'matrix' if matrices == 1 else 'matrices'} with rows of {cols}"]
        lines.append(f"{'method':{width}}  {'bits':>6}  {'output error':>12}  {'weight error':>12}  {'seconds':>7}")
        for summary in table:
            sample = f"  {summary.sampled} rows of each" if summary.sampled else ""
            errors = f"{summary.output_error:12.4f}  {summary.weight_error:12.4f}"
            lines.append(f"{summary.method:{width}}  {summary.bits:6.3f}  {errors}  {summary.seconds:7.1f}{sample}")
        reasons: dict[str, list[str]] = {}
        for (method, length), why in found.left_out.items():
            if length == cols:
                reasons.setdefault(why, []).append(method)
        lines += [f"not here: {', '.join(methods)}: {why}" for why, methods in reasons.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(compare_methods, build_parser().parse_args(argv))
