"""`ggpy-eval`: how good a model is on a text, how far it is from its base, how well it does a task."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, non_negative_int, positive_int, run_command, whole_number
from ggpy.errors import GGPyError, printable

if TYPE_CHECKING:
    from ggpy.evaluate import Difference, Evaluation

CONVENTIONS = ("llama.cpp", "huggingface")  # as in ggpy.evaluate, which would cost --help its imports
KINDS = ("choice", "classification", "answers")
DEFAULT_CONTEXT = 512


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-eval`."""
    parser = command_parser(
        "ggpy-eval",
        "Measure the perplexity of MODEL on a text; with --base, KL divergence and top-1 agreement too. Or have it do a task from a file.",
    )
    parser.add_argument("model", metavar="MODEL", help="what ggpy-run takes: a GGUF file, a checkpoint directory, a Hub repository")
    parser.add_argument("--ctx", metavar="N", type=whole_number(3), help="tokens per chunk (default 512); of a task, the context")
    parser.add_argument("--worst", metavar="N", type=non_negative_int, default=5, help="list N of what went worst (default 5)")
    parser.add_argument("--no-cache", action="store_true", help="neither use nor keep what earlier runs left")
    parser.add_argument("--threads", metavar="N", type=positive_int, help="threads (default: what this process may use)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    of_text = parser.add_argument_group("on a text")
    of_text.add_argument("--text", metavar="FILE", type=Path, help="the text, UTF-8")
    of_text.add_argument(
        "--base",
        metavar="MODEL",
        help="the model to compare with, such as the F16 file MODEL was quantized from, or its checkpoint directory (evaluated as "
        "the floating-point type it is in); or a file that llama-perplexity wrote with --kl-divergence-base",
    )
    of_text.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="llama.cpp: chunks side by side, the second half of each scored; huggingface: a window that moves by --stride, "
        "every token scored once (default llama.cpp)",
    )
    of_text.add_argument(
        "--stride", metavar="N", type=positive_int, help="tokens a window moves by; as --ctx: side by side (default: half)"
    )
    of_text.add_argument("--chunks", metavar="N", type=positive_int, help="how many chunks at the most (default: the whole text)")
    of_text.add_argument(
        "--base-cache",
        metavar="DIR",
        type=Path,
        help="keep the base's log-probabilities there, without a limit (default: in the user's cache directory, 8 GB at the most)",
    )
    of_task = parser.add_argument_group("on a task")
    of_task.add_argument("--task", metavar="FILE", type=Path, help="examples, one JSON object a line: docs/evaluate.md has the fields")
    of_task.add_argument("--kind", choices=KINDS, help="what kind of task (default: what the first line looks like)")
    of_task.add_argument("--labels", metavar="A,B,…", type=_labels, help="of a classification (default: those in FILE)")
    of_task.add_argument("--prefix", metavar="FILE", type=Path, help="a text before every prompt, such as examples with their answers")
    of_task.add_argument("--limit", metavar="N", type=positive_int, help="the first N examples (default: all)")
    of_task.add_argument("--max-tokens", metavar="N", type=positive_int, default=32, help="of an answer (default 32)")
    of_task.add_argument("--chat", action="store_true", help="ask for answers in the model's chat format")
    return parser


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(text.split(","))
    if not all(labels) or len(set(labels)) < 2:
        raise argparse.ArgumentTypeError(f"'{printable(text, 40)}' is not at least two labels separated by commas")
    return tuple(dict.fromkeys(labels))


def evaluate_model(args: argparse.Namespace) -> None:
    """Run what `args` asks for."""
    from ggpy.cli.eval_task import evaluate_task

    if (args.text is None) == (args.task is None):
        raise GGPyError("give either --text or --task: what is MODEL to be measured on?")
    if args.text is not None:
        evaluate_file(args)
    else:
        evaluate_task(args)


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

    context = args.ctx or DEFAULT_CONTEXT
    with ggpy.load(path, threads=args.threads, context=context, on_compile=show_kernel) as model:
        found = evaluate(
            model,
            text,
            base=base,
            context=context,
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
    return run_command(evaluate_model, build_parser().parse_args(argv))
