"""`ggpy VERB …`: the same commands as `ggpy-VERB`, under one name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ggpy.cli.common import USAGE, command_parser

VERBS = {
    "convert": "turn a Hugging Face checkpoint or a GGUF file into a GGUF file of another type",
    "calibrate": "count what a model's weights are multiplied by over a text, for quantizing",
    "pick": "find the type of every tensor that keeps a size, a speed or a quality",
    "export": "write a GGUF file as a Hugging Face directory",
    "run": "chat with a model, or let it continue a prompt",
    "verify": "check that a converted file is still what its certificate says",
    "edit": "change metadata, chat template and names in a GGUF file",
    "diff": "show what differs between two GGUF files",
    "xray": "show where a quantized file's error is: tensors, blocks, rows and columns",
    "doctor": "find what is wrong with a GGUF file, and what to do",
    "inspect": "show metadata, tensors, sizes and bits per weight of a GGUF file",
    "bench": "measure prefill and decode speed against the machine's limits",
    "eval": "measure perplexity, and how far a quantized model is from its base",
    "methods": "compare methods of quantization on some layers of a model",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy` itself; each verb has its own, in its module."""
    verbs = "\n".join(f"  {verb:<11}{summary}" for verb, summary in VERBS.items())
    parser = command_parser(
        "ggpy",
        "Hugging Face checkpoints to GGUF, and GGUF on the CPU.",
        usage="ggpy VERB …",
        epilog=f"verbs:\n{verbs}\n\n`ggpy VERB --help` explains one; each is also a command of its own, ggpy-VERB.",
    )
    parser.add_argument("verb", metavar="VERB", choices=list(VERBS), help="what to do; see below")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` begins with; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in VERBS:
        return import_module(f"ggpy.cli.{arguments[0]}").main(arguments[1:])
    build_parser().parse_args(arguments[:1])
    return USAGE
