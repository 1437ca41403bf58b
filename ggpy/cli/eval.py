"""`ggpy-eval`: how good a model is on a text, and how far it is from its base."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, positive_int, run_command, whole_number

if TYPE_CHECKING:
    from ggpy.evaluate import Evaluation


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-eval`."""
    parser = command_parser("ggpy-eval", "Measure the perplexity of MODEL on a text; with --base, KL divergence and top-1 agreement too.")
    parser.add_argument("model", metavar="MODEL", help="what ggpy-run takes: a GGUF file, a checkpoint directory, a Hub repository")
    parser.add_argument("--text", metavar="FILE", type=Path, required=True, help="the text, UTF-8")
    parser.add_argument("--base", metavar="MODEL", help="the model to compare with, such as the F16 file MODEL was quantized from")
    parser.add_argument(
        "--ctx", metavar="N", type=whole_number(3), default=512, help="tokens per chunk; half of them are scored (default 512)"
    )
    parser.add_argument("--chunks", metavar="N", type=positive_int, help="how many chunks at the most (default: the whole text)")
    parser.add_argument("--threads", metavar="N", type=positive_int, help="threads (default: what this process may use)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def evaluate_file(args: argparse.Namespace) -> None:
    """Load what `args` names, evaluate it, print the figures on stdout and the progress on stderr."""
    import ggpy
    from ggpy.cli.model_file import find_model
    from ggpy.cli.status import Status
    from ggpy.evaluate import evaluate

    status = Status(args.prog)
    text = args.text.read_bytes().decode("utf-8", "replace")  # not read_text, which would change "\r\n"

    def load(name: str) -> ggpy.Model:
        path = find_model(name, status, args.threads)
        return ggpy.load(path, threads=args.threads, context=args.ctx, on_compile=lambda kernel, *_: status.show(f"compiling {kernel[0]}"))

    def show_chunk(done: int, total: int, perplexity: float) -> None:
        status.show(f"chunk {done} of {total}, perplexity {perplexity:.3f}")

    base = load(args.base) if args.base else None
    found = evaluate(load(args.model), text, base=base, context=args.ctx, chunks=args.chunks, on_chunk=show_chunk)
    status.clear()
    print(json.dumps(as_json(found)) if args.json else as_text(found))


def as_json(found: Evaluation) -> dict[str, object]:
    """One flat object: the comparison's figures stand beside the model's, the base's perplexity as `base_perplexity`."""
    figures = dataclasses.asdict(found)
    comparison = figures.pop("comparison") or {}
    if comparison:
        comparison["base_perplexity"] = comparison.pop("perplexity")
    return figures | comparison


def as_text(found: Evaluation) -> str:
    """The figures, a line each."""
    lines = [
        f"perplexity       {found.perplexity:.4f} ± {found.perplexity_error:.4f}",
        f"scored           {found.scored} tokens in {found.chunks} chunks of {found.context}, {found.seconds:.1f} s",
    ]
    if found.comparison:
        other = found.comparison
        lines += [
            f"base perplexity  {other.perplexity:.4f} (ratio {found.perplexity / other.perplexity:.4f})",
            f"KL divergence    {other.kl_mean:.6f} ± {other.kl_error:.6f} nats per token",
            f"                 99 % below {other.kl_p99:.4f}, largest {other.kl_max:.4f}",
            f"top-1 agreement  {other.top1:.2%}",
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(evaluate_file, build_parser().parse_args(argv))
