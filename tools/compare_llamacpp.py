"""ggpy against llama.cpp on the same file, machine and threads, in one run: a table in Markdown.

    python tools/compare_llamacpp.py MODEL.gguf --llama-bench PATH/llama-bench [-p 512] [-n 128] [--depth 8000] [--threads 1,2] [--rounds 5]
    python tools/compare_llamacpp.py MODEL.gguf --llama-module xllamacpp
    python tools/compare_llamacpp.py MODEL.gguf --llama-bench avx2=PATH/llama-bench --ggpy-env NUMBA_CPU_NAME=haswell

All take turns, a round each, so that what else the machine does hits all alike; each is a process of its own that warms up and measures
once. What counts is the ratio: the median of the rounds' ratios, with the smallest and largest, to the fastest of all peers and modes.
Modes are llama.cpp's settings: default, norepack (weights stay as in the file), nofa (no flash attention). A llama.cpp that was built
without instructions which this CPU has, and which --ggpy-env has not taken from ggpy either, is said so: ratios to it flatter. "Of the
limit" is ggpy-bench's share.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison import digits, ggpy_command, ggpy_environment, in_turn, markdown, round_ratios, run_json, run_text, spread
from llama_peers import MODES, Key, Peer, find_peer, this_host, warning

OURS = "ggpy"
Rounds = Mapping[str, Mapping[Key, Sequence[float]]]
"""contestant ("ggpy", or a peer and its mode) -> test and threads -> tokens per second, a value per round"""


def ggpy_bench(args: argparse.Namespace) -> dict[str, Any]:
    """What one run of ggpy-bench reports."""
    options = ["-p", args.prefill, "-n", args.decode, "--depth", args.depth, "--threads", args.threads, "--repetitions", 1, "--json"]
    return run_json(ggpy_command("bench", args.model, *options), ggpy_environment(args.ggpy_env))


def lowering(settings: Sequence[str]) -> str:
    """What ggpy's kernels are compiled to in an environment."""
    code = "from ggpy.simd.target import target; print(target().name)"
    return run_text([sys.executable, "-c", code], ggpy_environment(settings)).strip()


def fastest(rounds: Rounds, key: Key) -> str:
    """The peer and mode with the highest median in a test."""
    return max((name for name in rounds if name != OURS), key=lambda name: statistics.median(rounds[name][key]))


def table(model: str, rounds: Rounds, shares: Mapping[Key, Sequence[float]]) -> str:
    """Markdown: a line per test, the tests in the order measured, by threads."""
    peers = [name for name in rounds if name != OURS]
    lines = []
    for key in sorted(rounds[OURS], key=lambda key: (key[0][:2] != "pp", "@" in key[0], key[1])):
        rival = fastest(rounds, key)
        medians = [statistics.median(rounds[name][key]) for name in (OURS, *peers)]
        ratios = round_ratios(rounds[OURS][key], rounds[rival][key])
        speeds = [f"{median:.{digits(median)}f}" for median in medians]
        ratio = spread(ratios, 2) + ("" if len(peers) == 1 else f" to {rival}")
        lines.append([model if not lines else "", key[0], str(key[1]), *speeds, ratio, f"{statistics.median(shares[key]):.0%}"])
    return markdown(["file", "test", "threads", *(f"{name} tok/s" for name in (OURS, *peers)), "ratio", "of the limit"], lines)


def measure(args: argparse.Namespace, contestants: Mapping[str, tuple[Peer, str]]) -> tuple[Rounds, list[dict[str, Any]]]:
    """All rounds, and ggpy's reports."""
    rounds: dict[str, dict[Key, list[float]]] = {name: defaultdict(list) for name in (OURS, *contestants)}
    reports = []
    depths = sorted({0, args.depth})
    for turn in range(args.rounds):
        for name in in_turn(list(rounds), turn):
            print(f"round {turn + 1} of {args.rounds}: {name}", file=sys.stderr, flush=True)
            if name == OURS:
                reports.append(ggpy_bench(args))
                speeds = {(row["test"], row["threads"]): row["tokens_per_second"] for row in reports[-1]["results"]}
            else:
                peer, mode = contestants[name]
                speeds = peer.run(args.model, prefill=args.prefill, decode=args.decode, depths=depths, threads=args.threads, mode=mode)
            for key, value in speeds.items():
                rounds[name][key].append(value)
    return rounds, reports


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", action="append", default=[], metavar="[NAME=]PATH", help="a llama-bench binary; may be repeated")
    parser.add_argument("--llama-module", action="append", default=[], metavar="NAME", help="llama_cpp or xllamacpp; may be repeated")
    parser.add_argument("--modes", default="default,norepack", help=f"of llama.cpp: {', '.join(MODES)} (default: default,norepack)")
    parser.add_argument("-p", "--prefill", type=int, default=512)
    parser.add_argument("-n", "--decode", type=int, default=128)
    parser.add_argument("--depth", type=int, default=0, help="measure again with so many tokens in the KV cache")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ggpy-env", action="append", default=[], metavar="NAME=VALUE", help="environment of ggpy; may be repeated")
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args(argv)
    if unknown := set(args.modes.split(",")) - MODES.keys():
        parser.error(f"no mode {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    if not args.llama_bench and not args.llama_module:
        parser.error("whom to compare with? Give --llama-bench PATH or --llama-module NAME")
    if not args.model.is_file():
        parser.error(f"no file {args.model}")
    return args


def main() -> None:
    args = parse()
    peers = [find_peer(words, False) for words in args.llama_bench] + [find_peer(words, True) for words in args.llama_module]
    if len({peer.name for peer in peers}) < len(peers):
        raise SystemExit("several peers have the same name; give each one: NAME=PATH")
    host, built = this_host(), {peer.name: peer.features() for peer in peers}
    held_to = lowering(args.ggpy_env) if args.ggpy_env else None
    warnings = [text for peer in peers if (text := warning(peer, host, built[peer.name], held_to))]
    print(*warnings, sep="\n", file=sys.stderr)
    modes = {peer.name: ["default"] if peer.program == "llama_cpp" else args.modes.split(",") for peer in peers}
    contestants = {
        f"{peer.name} {mode}" if len(modes[peer.name]) > 1 else peer.name: (peer, mode) for peer in peers for mode in modes[peer.name]
    }
    rounds, reports = measure(args, contestants)

    machine, shares = reports[-1]["machine"], defaultdict(list)
    for report in reports:
        for row in report["results"]:
            shares[row["test"], row["threads"]].append(row["share_of_limit"])
    print(f"{machine['cpu']}: {' '.join(host) or 'features unknown'}; load {machine['load']}; {args.rounds} rounds")
    print(f"ggpy {machine['ggpy']}: {' '.join([machine['lowering'], *args.ggpy_env])}")
    for peer in peers:
        print(f"{peer.name}: {' '.join(built[peer.name]) or 'features unknown'}; modes {', '.join(modes[peer.name])}")
    print(*(f"**{text}**" for text in warnings), sep="\n")
    print(f"\n{table(f'{args.model.name}, {args.model.stat().st_size / 1e6:.0f} MB', rounds, shares)}")
    for test, threads in rounds[OURS]:
        costs = [row["cache_cost"] for r in reports for row in r["results"] if (row["test"], row["threads"]) == (test, threads)]
        if costs[0] is not None:
            print(f"\n{test}, {threads} threads: over an empty cache {spread(costs, 2)} × what reading the keys and values takes")
    if args.json:
        speeds = [{"contestant": n, "test": t, "threads": k, "runs": runs} for n, tests in rounds.items() for (t, k), runs in tests.items()]
        figures = {"host": host, "peers": built, "warnings": warnings, "ggpy_env": args.ggpy_env, "speeds": speeds, "ggpy": reports}
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
