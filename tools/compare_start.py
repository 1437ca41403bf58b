"""How long ggpy and llama.cpp take from the start of the process to its end, with one token: a table in Markdown.

    python tools/compare_start.py MODEL.gguf --llama-completion PATH/llama-completion [--rounds 15] [--first 3]

Both answer "Hi" with one token of the same file, in turns; the file is read once before, so that it is in the page cache. Wall and
processor time (user and system, all threads) are medians of the rounds with the smallest and largest; what counts is the median of the
rounds' ratios.

ggpy's kernels are compiled before, its Python modules too: as an installation has them, even where PYTHONDONTWRITEBYTECODE keeps a checkout
from it. --no-bytecode measures what it takes without. --first N measures first starts: with an empty cache, nothing compiled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from comparison import ggpy_command, ggpy_environment, in_turn, markdown, round_ratios, spread

OURS, THEIRS = "ggpy", "llama.cpp"


class Start(NamedTuple):
    """One process: seconds until it ended, processor seconds, most memory in bytes."""

    wall: float
    cpu: float
    memory: int


def run(command: Sequence[str], environment: Mapping[str, str]) -> Start:
    """Start a program and wait for its end; SystemExit with its last line on stderr when it fails."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise SystemExit(f"{command[0]} failed ({process.returncode}): {said[-1] if said else 'no message'}")
    return Start(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def environment(folder: Path, bytecode: bool) -> dict[str, str]:
    """Where ggpy keeps its kernels and, with `bytecode`, Python its modules: below `folder`."""
    own = ggpy_environment([f"GGPY_CACHE_DIR={folder / 'ggpy'}"])
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    own.pop("PYTHONPYCACHEPREFIX", None)
    return own | ({"PYTHONPYCACHEPREFIX": str(folder / "bytecode")} if bytecode else {"PYTHONDONTWRITEBYTECODE": "1"})


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> command line of each contestant."""
    threads = [] if args.threads is None else ["--threads", str(args.threads)]
    found = {OURS: [*ggpy_command("run", args.model, "Hi", "-n", 1), *threads]}
    if args.llama_completion:
        found[THEIRS] = [args.llama_completion, "-m", args.model, "-p", "Hi", "-n", "1", "-no-cnv", *threads]
    return found


def first_starts(args: argparse.Namespace, folder: Path) -> list[Start]:
    """ggpy with nothing compiled but Python's modules."""
    starts = []
    for turn in range(args.first):
        own = environment(folder, not args.no_bytecode) | {"GGPY_CACHE_DIR": str(folder / f"empty-{turn}")}
        starts.append(run(commands(args)[OURS], own))
    return starts


def row(name: str, starts: Sequence[Start], ratios: Sequence[float]) -> list[str]:
    wall, cpu = [start.wall for start in starts], [start.cpu for start in starts]
    memory = statistics.median(start.memory for start in starts) / 1e6
    return [name, spread(wall, 3), spread(cpu, 3), f"{memory:.0f}", spread(ratios, 2) if ratios else ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--llama-completion", metavar="PATH", help="llama.cpp's program; without it ggpy is measured alone")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="first starts to measure (default none)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-bytecode", action="store_true", help="compile ggpy's Python modules at each start")
    args = parser.parse_args()
    contestants = commands(args)
    starts: dict[str, list[Start]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        own = environment(Path(name), not args.no_bytecode)
        for command in contestants.values():
            run(command, own)
        for turn in range(args.rounds):
            for contestant in in_turn(list(contestants), turn):
                starts[contestant].append(run(contestants[contestant], own))
        first = first_starts(args, Path(name))
    ratios = round_ratios([s.wall for s in starts[OURS]], [s.wall for s in starts[THEIRS]]) if THEIRS in starts else []
    rows = [row(contestant, starts[contestant], ratios if contestant == OURS else []) for contestant in contestants]
    if first:
        rows.append(row("ggpy, first start", first, []))
    print(markdown(["", "wall, s", "processor, s", "memory, MB", f"wall, × {THEIRS}"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
