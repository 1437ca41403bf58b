"""`ggpy-bench`: how fast a model runs here, and what share of the machine's limits that is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ggpy.cli.common import command_parser, list_of, non_negative_int, positive_int, run_command

if TYPE_CHECKING:
    from ggpy.bench import Result


def build_parser() -> argparse.ArgumentParser:
    """The parser of `ggpy-bench`."""
    parser = command_parser("ggpy-bench", "Measure prefill and decode speed of MODEL, as medians and as a share of this machine's limits.")
    parser.add_argument("model", metavar="MODEL", help="what ggpy-run takes: a GGUF file, a checkpoint directory, a Hub repository")
    parser.add_argument("-p", "--prefill", metavar="N", type=non_negative_int, default=512, help="prompt tokens; 0: no test (default 512)")
    parser.add_argument(
        "-n", "--decode", metavar="N", type=non_negative_int, default=128, help="tokens to generate; 0: no test (default 128)"
    )
    parser.add_argument("--depth", metavar="N", type=non_negative_int, default=0, help="measure again with N tokens in the KV cache")
    parser.add_argument("--batch", metavar="N", type=positive_int, default=1, help="decode N sequences together, too")
    parser.add_argument("--threads", metavar="N[,N…]", type=list_of(positive_int), help="threads (default: what this process may use)")
    parser.add_argument("-r", "--repetitions", metavar="N", type=positive_int, default=5, help="measured runs of each test (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def bench_file(args: argparse.Namespace) -> None:
    """Measure what `args` names; the results on stdout, one by one or as JSON."""
    from ggpy.bench import bench, machine
    from ggpy.cli.model_file import find_model
    from ggpy.cli.status import Status

    status = Status(args.prog)
    path = find_model(args.model, status)
    about = machine()
    if not args.json:
        status.say(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in about.items()))
        print(HEADER)

    def on_compile(kernel: tuple[str, str], done: int, total: int) -> None:
        status.show(f"compiling {'.'.join(kernel)} ({done + 1} of {total})")

    def on_result(result: Result) -> None:
        status.clear()
        if not args.json:
            print(as_row(result), flush=True)

    tests = {"prefill": args.prefill, "decode": args.decode, "depth": args.depth, "sequences": args.batch}
    report = bench(path, threads=args.threads, repetitions=args.repetitions, on_result=on_result, on_compile=on_compile, **tests)
    kernels = [".".join(kernel) for kernel in report.kernels]
    if args.json:
        print(json.dumps({"machine": about, "kernels": kernels, "results": [as_json(result) for result in report.results]}))
        return
    for result in report.results:
        if result.cache_cost is not None:
            said = f"a token takes longer than from an empty cache by {result.cache_cost:.2f} × what reading the keys and values takes"
            status.say(f"{result.test}, {result.threads} threads: {said}")
        if result.gain is not None:
            status.say(f"{result.test}, {result.threads} threads: {result.gain:.2f} × the tokens of one sequence")
    status.say(f"kernels {' '.join(kernels)}")


HEADER = f"{'test':14} {'threads':>7} {'tokens/s':>9} {'range':>15} {'reached':>10} {'limit':>10} {'share':>6} {'other load':>11}"


def as_row(result: Result) -> str:
    """One line of the table."""
    spread = f"{min(result.runs):.1f}-{max(result.runs):.1f}"
    unit = f"G{result.unit.upper()}/s"
    reached, limit = (
        f"{rate * result.per_token / 1e9:.{0 if result.unit == 'op' else 1}f} {unit}" for rate in (result.tokens_per_second, result.limit)
    )
    others = "" if result.others is None else f"{result.others:.1f}"
    speed = f"{result.test:14} {result.threads:7} {result.tokens_per_second:9.1f} {spread:>15}"
    return f"{speed} {reached:>10} {limit:>10} {result.share_of_limit:6.0%} {others:>11}"


def as_json(result: Result) -> dict[str, object]:
    """The result as it stands in the JSON output."""
    return {
        "test": result.test,
        "threads": result.threads,
        "depth": result.depth,
        "sequences": result.sequences,
        "tokens_per_second": result.tokens_per_second,
        "runs": list(result.runs),
        "share_of_limit": result.share_of_limit,
        "limit": result.limit,
        "unit": result.unit,
        "per_token": result.per_token,
        "rates": list(result.rates),
        "others": result.others,
        "cache_cost": result.cache_cost,
        "gain": result.gain,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(bench_file, build_parser().parse_args(argv))
