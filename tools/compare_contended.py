"""How much decoding loses when other programs keep the processors busy: ggpy and llama.cpp in turns, on the quiet machine and not.

    python tools/compare_contended.py MODEL.gguf --llama-bench PATH/llama-bench [-n 32] [--threads 2] [--busy 2] [--rounds 3]

In each round both decode on the machine as it is, then beside `--busy` programs that compute without end (default: one for each processor).
Counted is how many times slower each gets: the median of the rounds, with the smallest and largest. Wants a machine that is quiet
otherwise; on one that is not, the first figure says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comparison import digits, ggpy_command, ggpy_environment, markdown, round_ratios, run_json, spread
from llama_peers import Peer, find_peer

from ggpy.runtime.host import available_threads

BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""
START = 0.3  # seconds that a busy program takes to be one


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Programs that compute while the block lasts, and end with it or with this process."""
    programs = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(START)
        yield
    finally:
        for program in programs:
            program.kill()
        for program in programs:
            program.wait()


def ggpy_speed(args: argparse.Namespace) -> float:
    """Tokens per second of one run after a warm-up."""
    options = ["-p", 0, "-n", args.decode, "--threads", args.threads, "--repetitions", 1, "--json"]
    return run_json(ggpy_command("bench", args.model, *options), ggpy_environment())["results"][0]["tokens_per_second"]


def llama_speed(peer: Peer, args: argparse.Namespace) -> float:
    """The same of llama.cpp."""
    (speed,) = peer.run(args.model, prefill=0, decode=args.decode, depths=[0], threads=str(args.threads), mode="default").values()
    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", required=True, metavar="PATH")
    parser.add_argument("-n", "--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, help="programs that keep processors busy (default: as many as there are processors)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not args.model.is_file():
        parser.error(f"no file {args.model}")
    peer = find_peer(args.llama_bench, False)
    count = args.busy or available_threads()
    contestants = {"ggpy": lambda: ggpy_speed(args), peer.name: lambda: llama_speed(peer, args)}
    quiet, contended = defaultdict(list), defaultdict(list)
    for turn in range(args.rounds):
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for name, run in contestants.items():
            quiet[name].append(run())
        for name, run in contestants.items():
            with busy(count):
                contended[name].append(run())
    rows = []
    for name in contestants:
        speeds = [spread(values, digits(min(values))) for values in (quiet[name], contended[name])]
        rows.append([name, *speeds, spread(round_ratios(quiet[name], contended[name]), 1)])
    print(f"{args.model.name}, tg{args.decode}, {args.threads} threads, {args.rounds} rounds\n")
    print(markdown(["", "quiet, tok/s", f"{count} busy programs, tok/s", "times slower"], rows))


if __name__ == "__main__":
    main()
