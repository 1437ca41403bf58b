"""ggpy against llama.cpp on the same file, machine and threads, in one run.

    python tools/compare_llamacpp.py MODEL.gguf --llama-bench PATH/llama-bench [-p 512] [-n 128] [--threads 1,2] [--rounds 5]

The two take turns, a round each, so that what else the machine does hits both alike; each is a process of its own that warms up and
measures once. Quote the ratio: the median of the rounds' ratios with the smallest and largest. `--llama-args "--repack 0"` passes
options on to llama-bench. What the llama.cpp build can use of the CPU is read from the library beside the binary.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

FEATURES = ("avx2", "f16c", "fma", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx_int8", "neon", "dotprod", "matmul_int8")

Key = tuple[str, int]
"""(test such as "tg128", threads)"""


def build_features(binary: Path) -> str:
    """The CPU features a llama.cpp build uses, as its own library tells; empty where that is not a shared library."""
    libraries = sorted(binary.resolve().parent.glob("libggml-cpu*.so*"))
    if not libraries:
        return ""
    os.environ["LD_LIBRARY_PATH"] = str(libraries[0].parent)
    ctypes.CDLL(str(libraries[0].with_name("libggml-base.so")), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(libraries[0]))
    return " ".join(name for name in FEATURES if getattr(library, f"ggml_cpu_has_{name}")())


def run_json(command: Sequence[str]):
    """The JSON a command prints; its stderr is shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def llama_bench(args: argparse.Namespace) -> tuple[dict[Key, float], str]:
    """One round of llama.cpp: tokens per second by test and threads, and its commit."""
    command = [str(args.llama_bench), "-m", str(args.model), "-p", str(args.prefill), "-n", str(args.decode)]
    command += ["-t", args.threads, "-r", "1", "-o", "json", *shlex.split(args.llama_args)]
    rows = run_json(command)
    named = {(f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}", row["n_threads"]): row["avg_ts"] for row in rows}
    return named, rows[0]["build_commit"]


def ggpy_bench(args: argparse.Namespace) -> tuple[dict[Key, dict], dict]:
    """One round of ggpy: its results by test and threads, and what it says of the machine."""
    command = [sys.executable, "-m", "ggpy", "bench", str(args.model), "-p", str(args.prefill), "-n", str(args.decode)]
    report = run_json([*command, "--threads", args.threads, "--repetitions", "1", "--json"])
    return {(row["test"], row["threads"]): row for row in report["results"]}, report["machine"]


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", type=Path, required=True, help="the llama-bench binary to compare with")
    parser.add_argument("-p", "--prefill", type=int, default=512)
    parser.add_argument("-n", "--decode", type=int, default=128)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama-args", default="", help='passed on to llama-bench, such as "--repack 0"')
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args()

    ours, theirs, shares, machine, commit = defaultdict(list), defaultdict(list), defaultdict(list), {}, ""
    for turn in range(args.rounds):
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
        rows, machine = ggpy_bench(args)
        peer, commit = llama_bench(args)
        for key, row in rows.items():
            ours[key].append(row["tokens_per_second"])
            shares[key].append(row["share_of_limit"] or 0.0)
            theirs[key].append(peer[key])

    print(f"{args.model.name}, {args.model.stat().st_size / 1e6:.0f} MB, {args.rounds} rounds")
    print(f"machine    {machine['cpu']}; load {machine['load']}; ggpy {machine['ggpy']} ({machine['lowering']})")
    print(f"llama.cpp  {commit} {args.llama_args}; uses {build_features(args.llama_bench) or 'unknown'}")
    print(f"{'test':8} {'threads':>7} {'ggpy tok/s':>26} {'llama.cpp tok/s':>26} {'ratio':>20} {'of the limit':>13}")
    for test, threads in sorted(ours):
        key = (test, threads)
        ratios = [a / b for a, b in zip(ours[key], theirs[key], strict=True)]
        columns = f"{spread(ours[key], 1):>26} {spread(theirs[key], 1):>26} {spread(ratios, 2):>20}"
        print(f"{test:8} {threads:7} {columns} {statistics.median(shares[key]):12.0%}")
    if args.json:
        figures = [{"test": t, "threads": n, "ggpy": ours[t, n], "llama.cpp": theirs[t, n]} for t, n in sorted(ours)]
        report = {"machine": machine, "llama.cpp": commit, "llama_args": args.llama_args, "results": figures}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
