"""ggpy-export: a GGUF file as a Hugging Face directory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ggpy.cli.common import command_parser, run_command
from ggpy.cli.status import Status


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-export`."""
    parser = command_parser(
        "ggpy-export", "Write a GGUF file as a Hugging Face directory: safetensors, config, tokenizer and chat template, for transformers."
    )
    parser.add_argument("file", metavar="FILE", help="a .gguf file, or any part of a split one")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the new directory; it must not exist, or be empty")
    parser.add_argument(
        "--dtype",
        choices=["f32", "f16", "bf16"],
        help="of the weights (default: the file's own where it has floats, f16 where it is quantized)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_export, build_parser().parse_args(argv))


def _export(args: argparse.Namespace) -> None:
    from ggpy.converter.export import export

    status, done = Status(args.prog), 0

    def show(name: str, n: int, total: int) -> None:
        nonlocal done
        done += n
        status.show(f"{done / total:.0%} {name}")

    try:
        exported = export(args.file, args.output, args.dtype, on_bytes=show)
    finally:
        status.clear()
    print(exported)
