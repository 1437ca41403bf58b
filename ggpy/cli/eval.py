"""`ggpy-eval`: how good a model is on a text, and how far it is from its base."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, non_negative_int, positive_int, run_command, whole_number
from ggpy.errors import printable

if TYPE_CHECKING:
    from ggpy.evaluate import Difference, Evaluation

CONVENTIONS = ("llama.cpp", "huggingface")  # as in ggpy.evaluate, which would cost --help its imports


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-eval`."""
    parser = command_parser("ggpy-eval", "Measure the perplexity of MODEL on a text; with --base, KL divergence and top-1 agreement too.")
    parser.add_argument("model", metavar="MODEL", help="what ggpy-run takes: a GGUF file, a checkpoint directory, a Hub repository")
    parser.add_argument("--text", metavar="FILE", type=Path, required=True, help="the text, UTF-8")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="the model to compare with, such as the F16 file MODEL was quantized from, or its checkpoint directory (evaluated as "
        "the floating-point type it is in); or a file that llama-perplexity wrote with --kl-divergence-base",
    )
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="llama.cpp: chunks side by side, the second half of each scored; huggingface: a window that moves by --stride, "
        "every token scored once (default llama.cpp)",
    )
    parser.add_argument("--ctx", metavar="N", type=whole_number(3), default=512, help="tokens per chunk or window (default 512)")
    parser.add_argument(
        "--stride", metavar="N", type=positive_int, help="tokens a window moves by; N of --ctx: side by side (default: half)"
    )
    parser.add_argument("--chunks", metavar="N", type=positive_int, help="how many chunks at the most (default: the whole text)")
    parser.add_argument("--worst", metavar="N", type=non_negative_int, default=5, help="list N positions that differ most (default 5)")
    parser.add_argument(
        "--base-cache",
        metavar="DIR",
        type=Path,
        help="keep the base's log-probabilities there, without a limit (default: in the user's cache directory, 8 GB at the most)",
    )
    parser.add_argument("--no-cache", action="store_true", help="neither use nor keep what earlier runs left")
    parser.add_argument("--threads", metavar="N", type=positive_int, help="threads (default: what this process may use)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def evaluate_file(args: argparse.Namespace) -> None:
    """Load what `args` names, evaluate it, print the figures on stdout and the progress on stderr."""
    import ggpy
    from ggpy.cli.model_file import find_model
    from ggpy.cli.status import Status
    from ggpy.evaluate import Store, evaluate, is_stored_base

    status = Status(args.prog)
    text = args.text.read_bytes().decode("utf-8", "replace")  # not read_text, which would change "\r\n"
    path = find_model(args.model, status, args.threads)
    base = args.base
    if base is not None and not is_stored_base(base):
        base = find_model(base, status, args.threads, unquantized=True)

    def show_chunk(done: int, total: int, perplexity: float) -> None:
        status.show(f"chunk {done} of {total}, perplexity {perplexity:.3f}")

    def show_kernel(kernel: tuple[str, str], done: int, total: int) -> None:
        status.show(f"compiling {kernel[0]}")

    with ggpy.load(path, threads=args.threads, context=args.ctx, on_compile=show_kernel) as model:
        found = evaluate(
            model,
            text,
            base=base,
            context=args.ctx,
            chunks=args.chunks,
            convention=args.convention,
            stride=args.stride,
            worst=args.worst,
            store=None if args.no_cache else Store(),
            base_store=Store(args.base_cache, limit=None) if args.base_cache else None,
            on_chunk=show_chunk,
        )
    status.clear()
    print(json.dumps(as_json(found)) if args.json else as_text(found))


def as_json(found: Evaluation) -> dict[str, object]:
    """One flat object: the comparison's figures stand beside the model's, the base's perplexity as `base_perplexity`."""
    figures = dataclasses.asdict(found)
    comparison = figures.pop("comparison") or {}
    for name in [name for name in comparison if name.startswith("perplexity")]:
        comparison[f"base_{name}"] = comparison.pop(name)
    return figures | comparison


def as_text(found: Evaluation) -> str:
    """The figures, a line each."""
    moved = "second half of each scored" if found.stride is None else f"moved by {found.stride}"
    known = f", {found.known_chunks} of them scored by an earlier run" if found.known_chunks else ""
    low, high = found.perplexity_interval
    lines = [
        f"perplexity       {found.perplexity:.4f} ± {found.perplexity_error:.4f} (95 %: {low:.4f} to {high:.4f})",
        f"convention       {found.convention}: chunks of {found.context}, {moved}",
        f"scored           {found.scored} tokens in {found.chunks} chunks{known}, {found.seconds:.1f} s",
    ]
    if found.comparison:
        other = found.comparison
        low, high = other.kl_interval
        lines += [
            f"base perplexity  {other.perplexity:.4f} ± {other.perplexity_error:.4f}; ratio {other.ratio:.5f} ± {other.ratio_error:.5f}",
            f"KL divergence    {other.kl_mean:.6f} ± {other.kl_error:.6f} nats per token (95 %: {low:.6f} to {high:.6f})",
            f"                 median {other.kl_median:.6f}, 90 % below {other.kl_p90:.4f}, 99 % below {other.kl_p99:.4f}, "
            f"99.9 % below {other.kl_p999:.4f}, largest {other.kl_max:.4f}",
            f"top-1 agreement  {other.top1:.2%} ± {other.top1_error:.2%}; the base's choice among the first five {other.top5:.2%}",
            f"RMS of Δp        {other.delta_p:.3%} ± {other.delta_p_error:.3%}",
        ]
        if other.worst:
            lines += ["", "where they differ most (KL; what came, and what each finds most likely, with probabilities)"]
            lines += [_difference(one) for one in other.worst]
    return "\n".join(lines)


def _difference(one: Difference) -> str:
    came = f"{_quoted(one.token)} base {one.base_p:.1%} model {one.p:.1%}"
    choices = f"base {_quoted(one.base_choice)} {one.base_choice_p:.1%}, model {_quoted(one.choice)} {one.choice_p:.1%}"
    return f"  {one.divergence:7.4f}  token {one.position}  …{printable(one.before)} → {came}; {choices}"


def _quoted(text: str) -> str:
    return f"'{printable(text, 40)}'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(evaluate_file, build_parser().parse_args(argv))
