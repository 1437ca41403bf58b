"""From a Hugging Face checkpoint to a quantized file: ggpy-convert against llama.cpp's converter and llama-quantize, one after the other.

    python tools/make_checkpoint.py 1b DIRECTORY
    python tools/compare_convert.py DIRECTORY --llama-quantize PATH --converter PATH/convert_hf_to_gguf.py [--python PATH]
        [--type q4_k_m] [--outtype bf16] [--threads 2] [--rounds 3] [--scratch DIR]

Both begin with the checkpoint in the page cache and end with a whole file in --scratch (default: beside DIRECTORY), where llama.cpp also
needs room for the float file in between. --python: the interpreter that has torch and transformers (default: this one). They take turns;
the first round warms up and is not counted. Times are medians with the smallest and largest. cpu: processor seconds, user and system. busy:
those, as a share of wall time × threads. memory: the most that was resident. The tensors of both files are compared byte by byte.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compare_quantize import same_tensors
from comparison import ggpy_command, ggpy_environment, in_turn, markdown, round_ratios, spread

from ggpy.converter.recipes import find_recipe
from ggpy.errors import GGPyError

GGPY, CONVERTER, QUANTIZE, BOTH = "ggpy-convert", "convert_hf_to_gguf", "llama-quantize", "llama.cpp, both"


@dataclass(frozen=True)
class Cost:
    """Of one process, or of two that ran one after the other: seconds of wall time and of processors, bytes resident at most."""

    wall: float
    cpu: float
    memory: int

    def then(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


def measured(command: Sequence[str], environment: dict[str, str] | None = None) -> Cost:
    """Run a command to its end. SystemExit with its last line when it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        except OSError as error:
            raise SystemExit(f"{command[0]}: {error.strerror}") from None
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            said = output.read().decode("utf-8", "replace").strip() or "no message"
            raise SystemExit(f"{shlex.join(command)} failed ({process.returncode}): {said.splitlines()[-1]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def compare(args: argparse.Namespace, folder: Path) -> tuple[dict[str, list[Cost]], bool]:
    """The costs of each round, and whether both wrote the same tensors."""
    ours, floats, theirs = (folder / f"{name}.gguf" for name in ("ggpy", "floats", "llama"))
    threads = str(args.threads)
    convert = [args.python, str(args.converter), str(args.checkpoint), "--outtype", args.outtype, "--outfile", str(floats)]
    quantize = [str(args.llama_quantize), str(floats), str(theirs), args.type.upper(), threads]
    costs: dict[str, list[Cost]] = defaultdict(list)
    for turn in range(args.rounds + 1):
        for name in in_turn((GGPY, BOTH), turn):
            if name == GGPY:
                command = ggpy_command(
                    "convert", args.checkpoint, "-o", ours, "-t", args.type, "--threads", threads, "--force", *args.ggpy_args
                )
                found = {GGPY: measured(command, ggpy_environment())}
            else:
                found = {CONVERTER: measured(convert), QUANTIZE: measured(quantize)}
                found[BOTH] = found[CONVERTER].then(found[QUANTIZE])
                floats.unlink()
            for who, cost in found.items():
                print(f"round {turn}: {who} {cost.wall:.1f} s", file=sys.stderr, flush=True)
                if turn:
                    costs[who].append(cost)
    return costs, same_tensors(ours, theirs)


def row(name: str, costs: list[Cost], threads: int) -> list[str]:
    """A line of the table."""
    busy = statistics.median(cost.cpu / cost.wall / threads for cost in costs)
    memory = max(cost.memory for cost in costs) / 1e6
    return [name, spread([c.wall for c in costs], 1), spread([c.cpu for c in costs], 1), f"{busy:.0%}", f"{memory:.0f}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="DIRECTORY")
    parser.add_argument("--llama-quantize", type=Path, required=True, metavar="PATH")
    parser.add_argument("--converter", type=Path, required=True, metavar="PATH", help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the interpreter that runs it (default: this one)")
    parser.add_argument("--type", default="q4_k_m", help="as ggpy-convert's -t (default: q4_k_m)")
    parser.add_argument("--outtype", default="bf16", help="of the float file in between (default: bf16, which loses nothing of bf16)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where files are written and removed (default: beside DIRECTORY)")
    parser.add_argument("--ggpy-args", type=str.split, default=[], metavar="ARGS", help="passed on to ggpy-convert")
    args = parser.parse_args(argv)
    if not (args.checkpoint / "config.json").is_file():
        parser.error(f"no config.json in {args.checkpoint}")
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads begin at 1")
    try:
        find_recipe(args.type)
    except GGPyError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(dir=args.scratch or args.checkpoint.resolve().parent) as folder:
        costs, equal = compare(args, Path(folder))
    size = sum(file.stat().st_size for file in args.checkpoint.glob("*.safetensors"))
    print(f"{args.checkpoint.name}, {size / 1e6:.0f} MB, to {args.type}, {args.threads} threads, {args.rounds} rounds\n")
    rows = [row(name, costs[name], args.threads) for name in (GGPY, CONVERTER, QUANTIZE, BOTH)]
    print(markdown(["program", "wall, s", "cpu, s", "busy", "memory, MB"], rows))
    ratios = round_ratios([cost.wall for cost in costs[BOTH]], [cost.wall for cost in costs[GGPY]])
    print(f"\nllama.cpp takes {spread(ratios, 2)} times as long; tensors {'are the same' if equal else '**differ**'}")


if __name__ == "__main__":
    main()
