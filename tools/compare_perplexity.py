"""ggpy-eval's figures beside llama-perplexity's, for the same files and text: a table in Markdown.

    python tools/compare_perplexity.py MODEL.gguf BASE.gguf --llama-perplexity PATH --text FILE [--ctx 512] [--chunks 8] [--threads 2]

llama-perplexity evaluates BASE, keeps its log-probabilities and compares MODEL with them; ggpy does the same with its own evaluation of
BASE, and once more with the log-probabilities that llama-perplexity kept. The two engines round differently, as two builds of one do; what
matters is that figures agree within the errors that llama-perplexity states. Exit code 1 where a figure with an error does not.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from comparison import markdown, run_text

import ggpy
from ggpy.evaluate import Evaluation, evaluate

NUMBER = r"(-?\d+\.\d+)"


@dataclass(frozen=True)
class Figure:
    """A line of llama-perplexity's summary: its name there, by what factor it is larger, and where ggpy has it."""

    theirs: str
    scale: float
    ours: str


FIGURES = {
    "perplexity": Figure(r"Mean PPL\(Q\)", 1, "perplexity"),
    "perplexity of the base": Figure(r"Mean PPL\(base\)", 1, "comparison.perplexity"),
    "ratio": Figure(r"Mean PPL\(Q\)/PPL\(base\)", 1, "comparison.ratio"),
    "KL divergence, mean": Figure("Mean    KLD", 1, "comparison.kl_mean"),
    "median": Figure("Median  KLD", 1, "comparison.kl_median"),
    "90 % below": Figure("90.0%   KLD", 1, "comparison.kl_p90"),
    "99 % below": Figure("99.0%   KLD", 1, "comparison.kl_p99"),
    "99.9 % below": Figure("99.9%   KLD", 1, "comparison.kl_p999"),
    "largest": Figure("Maximum KLD", 1, "comparison.kl_max"),
    "RMS of Δp": Figure("RMS Δp", 100, "comparison.delta_p"),
    "top-1 agreement": Figure("Same top p", 100, "comparison.top1"),
}


def find(figure: Figure, printed: str) -> tuple[float, float | None]:
    """The value of a figure in what llama-perplexity printed, and its error where it states one."""
    found = re.search(rf"^{figure.theirs}\s*:\s*{NUMBER}(?:\s*±\s*{NUMBER})?", printed, re.MULTILINE)
    if found is None:
        raise SystemExit(f"llama-perplexity printed no line {figure.theirs!r}; does the text have 100 tokens to score?")
    value, error = found.groups()
    return float(value) / figure.scale, None if error is None else float(error) / figure.scale


def value_of(found: Evaluation, path: str) -> float:
    """A figure of an evaluation, by the names of its attributes."""
    value: object = found
    for name in path.split("."):
        value = getattr(value, name)
    assert isinstance(value, float)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--llama-perplexity", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "log-probabilities"
        common = ["-f", args.text, "-c", args.ctx, "-b", args.ctx, "--chunks", args.chunks, "-t", args.threads]
        command = [args.llama_perplexity, "-m", args.base, *common, "--kl-divergence-base", stored]
        run_text([str(word) for word in command])
        command = [args.llama_perplexity, "-m", args.model, *common, "--kl-divergence-base", stored, "--kl-divergence"]
        printed = run_text([str(word) for word in command])
        text = args.text.read_bytes().decode("utf-8", "replace")
        with ggpy.load(args.model, threads=args.threads, context=args.ctx) as model:
            own, theirs = (evaluate(model, text, base=base, context=args.ctx, chunks=args.chunks) for base in (args.base, stored))
    rows, differ = [], []
    for name, figure in FIGURES.items():
        value, error = find(figure, printed)
        ours = [value_of(found, figure.ours) for found in (own, theirs)]
        rows.append([name, f"{value:.6f}" + (f" ± {error:.6f}" if error is not None else ""), *(f"{one:.6f}" for one in ours)])
        if error is not None and any(abs(one - value) > error for one in ours):
            differ.append(name)
    print(markdown(["", "llama-perplexity", "ggpy, own base", "ggpy, the base llama-perplexity kept"], rows))
    if differ:
        print(f"beyond the error stated: {', '.join(differ)}", file=sys.stderr)
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
