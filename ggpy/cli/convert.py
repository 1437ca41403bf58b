"""ggpy-convert: a Hugging Face checkpoint, or another GGUF file, into a GGUF file."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, positive_int, run_command
from ggpy.errors import printable

if TYPE_CHECKING:
    from ggpy.converter import Progress

_LINE_SECONDS = 5.0  # between two lines of progress where there is no terminal


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-convert`."""
    parser = command_parser("ggpy-convert", "Convert a Hugging Face checkpoint, or requantize a GGUF file, into a GGUF file.")
    parser.add_argument("src", metavar="SRC", help="a checkpoint directory, a .gguf file, or a Hub repository (owner/model[@revision])")
    parser.add_argument("-o", "--output", metavar="OUT", help="the new file (default: the model's name and type, in the current directory)")
    parser.add_argument(
        "-t",
        "--type",
        default="q4_k_m",
        metavar="TYPE",
        help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q4_k_m, q4_k_s, q5_1, q5_0, q4_1 or q4_0, in any case (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads that encode (default: all this process may use)")
    parser.add_argument("--error", action="store_true", help="measure and list how far each tensor is from the source (relative RMSE)")
    parser.add_argument("--strict", action="store_true", help="refuse what would only be warned of")
    parser.add_argument("--no-verify", action="store_true", help="do not read the new file back before it gets its name")
    parser.add_argument("--json", action="store_true", help="write the summary as JSON, with every tensor")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_convert, build_parser().parse_args(argv))


def _convert(args: argparse.Namespace) -> None:
    from ggpy.converter import convert
    from ggpy.converter.hub import find_source

    source = find_source(args.src)
    with _shown_progress() as (on_progress, say):
        report = convert(
            source,
            args.output,
            args.type,
            force=args.force,
            threads=args.threads,
            strict=args.strict,
            verify=not args.no_verify,
            measure_error=args.error,
            on_progress=on_progress,
            on_warning=lambda line: say(f"{args.prog}: warning: {printable(line, 2000)}"),
        )
    if args.json:
        json.dump(report.to_json(), sys.stdout, indent=2, allow_nan=False)
        print()
        return
    if args.error:
        print(report.error_table(), end="\n\n")
    print(report)


@contextlib.contextmanager
def _shown_progress() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """What to call with progress, and with lines to show beside it: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(), lambda line: print(line, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        tasks = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, what="")
            bars.update(tasks[progress.stage], completed=progress.done, what=printable(progress.what, 64))

        yield show, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Lines:
    """Progress as plain lines on stderr: each encoder that is compiled, and every few seconds how far the rest is."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began = progress.stage, now
        if progress.stage == "compile":
            print(
                f"compiling {printable(progress.what)} ({progress.done + 1} of {progress.total}), once per machine",
                file=sys.stderr,
                flush=True,
            )
        elif now - self._shown >= _LINE_SECONDS and now - self._began >= 1:
            self._shown = now
            left = (now - self._began) * (progress.total - progress.done) / progress.done
            share = f"{progress.done / progress.total:.0%}, about {left:.0f} s left, at {printable(progress.what, 64)}"
            print(f"{progress.stage}: {share}", file=sys.stderr, flush=True)
