"""`ggpy calibrate`: count what a model's weights are multiplied by over a text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ggpy.cli.common import command_parser, positive_int, run_command, whole_number
from ggpy.errors import GGPyError


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-calibrate`."""
    parser = command_parser(
        "ggpy-calibrate",
        "Count what MODEL's weights are multiplied by over TEXT: an importance matrix as llama-imatrix makes it, for ggpy-convert "
        "--imatrix and llama-quantize; with --hessians also what GPTQ needs.",
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a checkpoint directory, a .gguf file, or a Hub repository; as exact as can be had"
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="?",
        help="a text file, a folder of .txt, .md and .jsonl files, or a Hub data set (owner/name[@revision][:FILE])",
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the new file, GGUF")
    parser.add_argument(
        "--merge", metavar="FILE", nargs="+", help="add up files of the same model that were counted apart, in place of MODEL and TEXT"
    )
    parser.add_argument(
        "--hessians", action="store_true", help="count the products of all pairs of inputs: n² numbers for matrices of n columns"
    )
    parser.add_argument(
        "--output-tensor", action="store_true", help="count the inputs of the output matrix too, which llama-imatrix leaves out"
    )
    parser.add_argument("--ctx", metavar="N", type=whole_number(2), default=512, help="tokens per chunk (default: %(default)s)")
    parser.add_argument("--chunks", metavar="N", type=positive_int, help="how many chunks at the most (default: the whole text)")
    parser.add_argument("--threads", metavar="N", type=positive_int, help="threads (default: all this process may use)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.merge and (args.model or args.text):
        parser.error("--merge takes files of statistics, not MODEL and TEXT")
    if not args.merge and args.text is None:
        parser.error("the following arguments are required: MODEL, TEXT")
    return run_command(_calibrate, args)


def _calibrate(args: argparse.Namespace) -> None:
    from ggpy.cli.progress import shown_progress
    from ggpy.converter.count import count_inputs
    from ggpy.converter.hub import find_source
    from ggpy.converter.statistics_file import merge_statistics

    if args.merge:
        if len(args.merge) < 2:
            raise GGPyError("--merge: expected two files or more")
        return merge_statistics(args.merge, args.output, force=args.force)
    source = find_source(args.model)
    with shown_progress() as (on_progress, _):
        found = count_inputs(
            source, args.text, args.output, hessians=args.hessians, head=args.output_tensor, chunk_tokens=args.ctx, chunks=args.chunks,
            threads=args.threads, force=args.force, on_progress=on_progress,
        )  # fmt: skip
    print(found)
