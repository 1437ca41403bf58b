"""How fast each architecture is beside a Llama of the same matrices: bytes of weights read per second when decoding, tokens in prefill.

    python tools/compare_architectures.py [--shape 300m] [--type q4_k_m] [--architectures gemma2,qwen3moe] [--threads 2] [-p 512] [-n 64]
                                          [--rounds 5] [--folder DIR]

Synthetic files (`make_synthetic.py`) differ in what their architectures add: norms, biases, caps, tensors in one, experts of which as many
are chosen as have the width of the dense network. In each round `ggpy-bench` runs the Llama's and another's file one after the other, now
the one and now the other first; a figure is the median of the rounds' ratios, with the smallest and largest. Prefill with experts reads
those of all its tokens, so it is slower the fewer tokens each gets. --folder keeps the files for another time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from comparison import ROOT, digits, ggpy_command, ggpy_environment, markdown, run_json, run_text, spread
from make_synthetic import ARCHITECTURES, SHAPES

from ggpy.runtime.host import available_threads

BASE = "llama"


def made(folder: Path, architecture: str, args: argparse.Namespace) -> Path:
    """The file of an architecture, written where it is not there yet."""
    path = folder / f"{args.shape}-{args.type}-{architecture}.gguf"
    if not path.exists():
        tool = [sys.executable, str(ROOT / "tools" / "make_synthetic.py"), args.shape, args.type, str(path)]
        run_text([*tool, "--architecture", architecture, "--threads", str(args.threads)], ggpy_environment())
    return path


def measured(path: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of one run of ggpy-bench: prefill, decode, as far as they are asked for."""
    options = ["-p", args.prefill, "-n", args.decode, "--threads", args.threads, "--repetitions", 1, "--json"]
    return run_json(ggpy_command("bench", path, *options), ggpy_environment())["results"]


def rate(result: dict[str, Any]) -> float:
    """Of decode, bytes per second: a token of one file may have more of them than of another; of prefill, tokens per second."""
    return result["tokens_per_second"] * (result["per_token"] if result["test"].startswith("tg") else 1)


def compare(base: Path, other: Path, args: argparse.Namespace) -> dict[str, tuple[list[float], list[float]]]:
    """Test -> (tokens per second of the other, its rate over that of the base) of each round."""
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for turn in range(args.rounds):
        order = [base, other] if turn % 2 else [other, base]
        results = {path: measured(path, args) for path in order}
        for of_base, of_other in zip(results[base], results[other], strict=True):
            speeds, ratios = found[of_base["test"]]
            speeds.append(of_other["tokens_per_second"])
            ratios.append(rate(of_other) / rate(of_base))
    return found


def run(folder: Path, args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    base = made(folder, BASE, args)
    rows = []
    for name in args.architectures:
        print(f"{name}: {args.rounds} rounds", file=sys.stderr, flush=True)
        for test, (speeds, ratios) in compare(base, made(folder, name, args), args).items():
            rows.append([name, test, spread(speeds, digits(min(speeds))), spread(ratios, 2)])
    print(f"{args.shape}, {args.type}, {args.threads} threads, {args.rounds} rounds\n")
    print(markdown(["", "test", "tok/s", f"of {BASE}'s speed"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    others = [name for name in ARCHITECTURES if name != BASE]
    parser.add_argument("--shape", choices=SHAPES, default="300m")
    parser.add_argument("--type", default="q4_k_m")
    parser.add_argument("--architectures", type=lambda names: names.split(","), default=others, help=f"default: {','.join(others)}")
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("-p", "--prefill", type=int, default=0)
    parser.add_argument("-n", "--decode", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    unknown = [name for name in args.architectures if name not in ARCHITECTURES]
    if unknown:
        parser.error(f"no architecture {', '.join(unknown)}; there are {', '.join(ARCHITECTURES)}")
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
        run(args.folder, args)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), args)


if __name__ == "__main__":
    main()
