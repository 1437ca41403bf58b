"""ggpy-convert: a Hugging Face checkpoint, or another GGUF file, into a GGUF file."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, positive_int, run_command
from ggpy.cli.pick import add_targets, pick_types, target_of
from ggpy.cli.progress import shown_progress
from ggpy.errors import GGPyError, printable

if TYPE_CHECKING:
    from ggpy.converter import Report
    from ggpy.picker.choice import Pick

VERIFY = ("full", "bytes", "none")  # as ggpy.converter.options has them, which is not imported for --help


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-convert`."""
    parser = command_parser("ggpy-convert", "Convert a Hugging Face checkpoint, or requantize a GGUF file, into a GGUF file.")
    parser.add_argument(
        "src", metavar="SRC", nargs="?", help="a checkpoint directory, a .gguf file, or a Hub repository (owner/model[@revision][:type])"
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="the new file (default: the model's name and type, in the current directory)")
    parser.add_argument(
        "-t",
        "--type",
        metavar="TYPE",
        help="one of llama-quantize's types, in any case: f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, "
        "q4_1, q4_0, iq4_nl, iq4_xs, mxfp4_moe, q3_k_l, q3_k_m, q3_k_s, q2_k, q2_k_s, tq2_0, tq1_0; keep: weights that are "
        "quantized already stay as they are, at most with scales rounded; exact: no bit is lost (default: keep for those, f32 for an "
        "adapter, else q4_k_m)",
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="DIR[=WEIGHT]",
        help="merge a PEFT LoRA adapter into the checkpoint on the way, scaled by WEIGHT (default: 1); may be given several times",
    )
    parser.add_argument(
        "--base", metavar="DIR", help="where SRC is an adapter's directory: its base checkpoint; the adapter becomes a GGUF file of its own"
    )
    _add_tensor_options(parser.add_argument_group("types of single tensors"))
    add_targets(parser.add_argument_group("types found by measuring, in place of --type (see docs/picker.md)"))
    before = parser.add_argument_group("before anything is converted")
    before.add_argument(
        "--explain",
        metavar="TYPE",
        help="say in five lines what a type is, for SRC where it is given; all: a table of every type",
    )
    before.add_argument(
        "--plan",
        action="store_true",
        help="write nothing; show every tensor's type, the file's size, the memory to run it, and whether both fit here",
    )
    before.add_argument("--ctx", type=positive_int, metavar="N", help="context of --plan in tokens (default: the model's, at most 4096)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads that encode (default: all this process may use)")
    parser.add_argument("--error", action="store_true", help="measure and list how far each tensor is from the source (relative RMSE)")
    parser.add_argument("--strict", action="store_true", help="refuse what would only be warned of")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted conversion where it stopped, and keep what is done should this one be",
    )
    parser.add_argument("--allow-nonfinite", action="store_true", help="keep NaN and infinity among the weights as they are, and say so")
    parser.add_argument(
        "--verify",
        choices=VERIFY,
        default="full",
        help="before the file gets its name: full reads it back, and compares its predictions on a short text with the source's; "
        "bytes only reads it back (default: %(default)s)",
    )
    parser.add_argument("--no-verify", dest="verify", action="store_const", const="none", help="the same as --verify none")
    parser.add_argument("--allow-uncertified", action="store_true", help="keep a file that predicts something else than its source")
    parser.add_argument("--card", metavar="FILE", help="write a model card: source, command, sizes by type, certificate, checksum")
    parser.add_argument("--push", metavar="OWNER/REPO", help="upload the file with its card and manifest to a Hub repository")
    parser.add_argument("--perplexity", metavar="TEXT", help="a text file to measure perplexity on, for the card")
    parser.add_argument("--json", action="store_true", help="write the summary as JSON, with every tensor")
    return parser


def _add_tensor_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--imatrix",
        metavar="FILE",
        help="an importance matrix made by llama-imatrix (GGUF, or the older .dat): weights that meet large activations are stored better",
    )
    group.add_argument(
        "--calibrate",
        metavar="TEXT",
        help="a text file, a folder of .txt, .md and .jsonl files or a Hub data set (owner/name[@revision][:FILE]) to take through the "
        "model, so that every matrix is quantized for the inputs it gets",
    )
    group.add_argument(
        "--method",
        metavar="METHOD",
        help="how weights are rounded with --calibrate: imatrix (weights that meet large activations better), awq (so, with such weights "
        "scaled up and the operation before scaled down, where that helps on text that was kept back), gptq (errors made up for by the "
        "weights behind), gptaq (so, and with what inputs lost in the layers before made up for: better, in twice the time), auto (imatrix "
        "or gptq, whichever does best on text that was kept back) (default: gptq)",
    )
    group.add_argument(
        "--calibration-tokens",
        type=positive_int,
        metavar="N",
        help="how much of the text is read, from all over it (default: 32768 tokens)",
    )
    group.add_argument(
        "--tensor-type",
        action="append",
        type=_override,
        default=[],
        metavar="PATTERN=TYPE",
        help="block format of the tensors in whose name the regular expression is found, as in attn_v=q8_0; the first that fits counts",
    )
    group.add_argument(
        "--output-tensor-type", metavar="TYPE", help="block format of output.weight, or of the embedding where it stands for both"
    )
    group.add_argument("--token-embedding-type", metavar="TYPE", help="block format of the token embedding")
    group.add_argument("--leave-output-tensor", action="store_true", help="leave output.weight as it is")
    group.add_argument("--pure", action="store_true", help="give all matrices the same block format, whatever the type's exceptions")


def _override(text: str) -> tuple[str, str]:
    pattern, equals, name = text.rpartition("=")
    if not equals or not pattern or not name:
        raise argparse.ArgumentTypeError(f"{printable(repr(text), 80)} is not PATTERN=TYPE, as in attn_v=q8_0")
    return pattern, name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.src is None and args.explain is None:
        parser.error("the following arguments are required: SRC")
    args.arguments = list(sys.argv[1:] if argv is None else argv)
    return run_command(_convert, args)


def _convert(args: argparse.Namespace) -> None:
    from ggpy.converter import convert
    from ggpy.converter.hub import find_source
    from ggpy.converter.lora import is_adapter

    if args.explain is not None:
        from ggpy.cli.forecast import show_explanation

        return show_explanation(args.explain, find_source(args.src) if args.src else None)
    _check_card(args)
    source = find_source(args.src, lambda line: print(f"{args.prog}: {printable(line, 2000)}", file=sys.stderr, flush=True))
    if is_adapter(source):
        return _convert_adapter(source, args)
    if args.base:
        raise GGPyError(f"--base {printable(args.base)}: is for adapters, which {printable(args.src)} is none of; merge one with --lora")
    lora = [(find_source(name), weight) for name, weight in map(_weighted, args.lora)]
    picked = _pick(source, args, lora)
    if args.plan:
        return _plan(source, args, lora)
    with shown_progress() as (on_progress, say):
        report = convert(
            source,
            args.output,
            args.type,
            imatrix=args.imatrix,
            calibrate=args.calibrate,
            method=args.method,
            calibration_tokens=args.calibration_tokens,
            overrides=args.tensor_type,
            output_type=args.output_tensor_type,
            embedding_type=args.token_embedding_type,
            keep_output=args.leave_output_tensor,
            pure=args.pure,
            force=args.force,
            threads=args.threads,
            strict=args.strict,
            verify=args.verify,
            allow_uncertified=args.allow_uncertified,
            measure_error=args.error,
            resume=args.resume,
            allow_nonfinite=args.allow_nonfinite,
            lora=lora,
            on_progress=on_progress,
            on_warning=lambda line: say(f"{args.prog}: warning: {printable(line, 2000)}"),
        )
    if args.card or args.push:
        _write_card(args, report, source)
    if args.json:
        found = report.to_json() | ({"pick": picked.to_json()} if picked else {})
        json.dump(found, sys.stdout, indent=2, allow_nan=False)
        print()
        return
    if args.error:
        print(report.error_table(), end="\n\n")
    print(report)


def _pick(source: Path, args: argparse.Namespace, lora: list[tuple[Path, float]]) -> Pick | None:
    """Where a target is given: find the types that keep it, show them, and put them into `args`."""
    target = target_of(args)
    if target is None:
        if args.front or args.pick_text:
            raise GGPyError("--front and --pick-text are for targets: give --target-size, --target-bpw, --min-tps or --max-kl")
        return None
    _refuse_types(args)
    from ggpy.converter.lora_merge import Weighted
    from ggpy.converter.options import Options

    with shown_progress() as (on_progress, _):
        options = Options(
            imatrix=Path(args.imatrix) if args.imatrix else None,
            overrides=tuple(args.tensor_type),
            threads=args.threads,
            lora=tuple(Weighted(*pair) for pair in lora),
            on_progress=on_progress,
        )
        picked = pick_types(source, target, options, args)
    print(picked, end="\n\n", file=sys.stderr if args.json else sys.stdout, flush=True)
    args.type = picked.recipe
    args.tensor_type = [*args.tensor_type, *picked.overrides]
    args.output = args.output or f"{picked.source}-{picked.chosen.bits_per_weight:.2f}bpw.gguf"
    return picked


def _refuse_types(args: argparse.Namespace) -> None:
    given = {
        "--type": args.type,
        "--output-tensor-type": args.output_tensor_type,
        "--token-embedding-type": args.token_embedding_type,
        "--leave-output-tensor": args.leave_output_tensor,
        "--pure": args.pure,
    }
    if names := [name for name, value in given.items() if value]:
        raise GGPyError(f"{names[0]} says what a target is to find; --tensor-type keeps single tensors out of that")


def _plan(source: Path, args: argparse.Namespace, lora: list[tuple[Path, float]]) -> None:
    from ggpy.cli.forecast import show_plan
    from ggpy.converter.lora_merge import Weighted
    from ggpy.converter.options import Options

    options = Options(
        type=args.type,
        imatrix=Path(args.imatrix) if args.imatrix else None,
        calibrate=Path(args.calibrate) if args.calibrate else None,
        method=args.method,
        calibration_tokens=args.calibration_tokens,
        overrides=tuple(args.tensor_type),
        output_type=args.output_tensor_type,
        embedding_type=args.token_embedding_type,
        keep_output=args.leave_output_tensor,
        pure=args.pure,
        strict=args.strict,
        verify=args.verify,
        lora=tuple(Weighted(*pair) for pair in lora),
        on_warning=lambda line: print(f"{args.prog}: warning: {printable(line, 2000)}", file=sys.stderr),
    )
    show_plan(source, args.output, options, args.ctx, as_json=args.json)


def _convert_adapter(source: Path, args: argparse.Namespace) -> None:
    from ggpy.converter.lora_file import convert_adapter

    if not args.base:
        raise GGPyError(
            f"{printable(source)}: is an adapter; name its base checkpoint with --base, or merge it: ggpy-convert BASE --lora {source}"
        )
    report = convert_adapter(source, args.base, args.output, args.type or "f32", force=args.force)
    for line in report.warnings:
        print(f"{args.prog}: warning: {printable(line, 2000)}", file=sys.stderr)
    print(report)


def _weighted(text: str) -> tuple[str, float]:
    """DIR or DIR=WEIGHT; a directory with an equals sign in its name is itself."""
    name, equals, weight = text.rpartition("=")
    if not equals or Path(text).is_dir():
        return text, 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise GGPyError(f"--lora {printable(text)}: weight '{printable(weight, 40)}' is not a finite number")
    return name, value


def _check_card(args: argparse.Namespace) -> None:
    """Refuse before the work what would fail after it."""
    if args.push:
        from ggpy.mend.card import check_repository

        check_repository(args.push)
    if args.perplexity and not (args.card or args.push):
        raise GGPyError("--perplexity is for the card: give --card or --push, or use ggpy-eval")
    if args.perplexity and not Path(args.perplexity).is_file():
        raise GGPyError(f"{printable(args.perplexity)}: no such text file")
    if args.card and Path(args.card).exists() and not args.force:
        raise GGPyError(f"{printable(args.card)}: exists already; name another card, or replace it with --force")


def _write_card(args: argparse.Namespace, report: Report, source: Path) -> None:
    from ggpy.mend.card import manifest, push, render_card

    measured = _perplexity(report.path, Path(args.perplexity)) if args.perplexity else None
    made = manifest(report, args.src, source, args.arguments, measured)
    if args.card:
        Path(args.card).write_text(render_card(made), encoding="utf-8")
    if args.push:
        print(f"{args.prog}: pushed to {printable(push(made, args.push, force=args.force))}", file=sys.stderr)


def _perplexity(path: Path, text: Path) -> tuple[str, float, float]:
    import ggpy
    from ggpy.evaluate import evaluate

    with ggpy.load(path) as model:
        found = evaluate(model, text.read_text(encoding="utf-8"), context=min(512, model.context))
    return text.name, found.perplexity, found.perplexity_error
