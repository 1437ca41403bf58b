"""How far quantized files are from their base on texts: KL divergence, top-1 agreement, perplexity at each file's size; tables in Markdown.

    python tools/compare_quality.py --base BASE.gguf --text HELD_OUT.txt [--text …] [--calibration TEXT.txt] [NAME=]FILE.gguf …
        [--against NAME] [--ctx 512] [--chunks 32] [--base-cache DIR] [--json FILE]

All by `ggpy.evaluate`: chunks of --ctx tokens, the second half of each scored. A table for each held-out text, one for all of them together
(the mean of their means, each text with the same weight) and, where the text that files were calibrated on is given, one for that, told
apart: what is good there only was learnt by heart. Errors are standard errors that know of chunks. --against adds how each file's mean
divergence compares with that of another one, as a ratio with the standard error from the pairs of chunks.

The base's log-probabilities and the scores of chunks are kept: a run that was ended goes on, and another file costs only its own row.
--base-cache keeps the former in a folder without a limit; without it, the user's cache directory holds 8 GB.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from comparison import markdown

import ggpy
from ggpy.errors import GGPyError
from ggpy.evaluate import Comparison, Evaluation, Store, evaluate
from ggpy.gguf import open_gguf


@dataclass(frozen=True)
class Candidate:
    """A file to be judged, its size in bytes and its bits per weight."""

    name: str
    path: Path
    n_bytes: int
    bits_per_weight: float

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """From FILE or NAME=FILE."""
        name, equals, file = text.rpartition("=")
        path = Path(text) if not equals or Path(text).is_file() else Path(file)
        with open_gguf(path) as gguf:
            values = sum(math.prod(tensor.shape) for tensor in gguf.tensors.values())
            stored = sum(tensor.data.nbytes for tensor in gguf.tensors.values())
            size = sum(part.stat().st_size for part in gguf.paths)
        return cls(name if path != Path(text) else path.stem, path, size, 8 * stored / values)


@dataclass(frozen=True)
class Row:
    """A file on a text."""

    file: Candidate
    text: str
    found: Evaluation

    @property
    def comparison(self) -> Comparison:
        assert self.found.comparison is not None
        return self.found.comparison


def ratio(rows: Sequence[Row], others: Sequence[Row]) -> tuple[float, float]:
    """The mean divergence of one file over that of another on the same texts, and the standard error of that from the pairs of chunks."""
    means = [np.array([[np.mean(row.comparison.kl_chunks) for row in side]]).mean() for side in (rows, others)]
    value, variance = float(means[0] / means[1]), 0.0
    for row, other in zip(rows, others, strict=True):
        rest = np.array(row.comparison.kl_chunks) - value * np.array(other.comparison.kl_chunks)
        if rest.size > 1:
            variance += float(rest.var(ddof=1)) / rest.size / (len(rows) * means[1]) ** 2
    return value, math.sqrt(variance)


HEAD = ("file", "bytes", "bits per weight", "mean KL", "99 % below", "top-1", "perplexity")


def table(rows: Sequence[Sequence[Row]], against: str | None) -> str:
    """A line for each file, from its rows on one text or several."""
    reference = next((group for group in rows if group[0].file.name == against), None)
    lines = []
    for group in rows:
        kl = float(np.mean([row.comparison.kl_mean for row in group]))
        error = math.hypot(*(row.comparison.kl_error for row in group)) / len(group)
        p99, top1 = (np.mean([getattr(row.comparison, name) for row in group]) for name in ("kl_p99", "top1"))
        loss = np.mean([math.log(row.found.perplexity) for row in group])
        line = [group[0].file.name, f"{group[0].file.n_bytes:,}", f"{group[0].file.bits_per_weight:.3f}"]
        line += [f"{kl:.6f} ± {error:.6f}", f"{p99:.4f}", f"{top1:.2%}", f"{math.exp(loss):.3f}"]
        if reference:
            value, error = ratio(group, reference)
            line.append("1" if group is reference else f"{value:.3f} ± {error:.3f}")
        lines.append(line)
    return markdown([*HEAD, f"KL of {against} ×"] if reference else HEAD, lines)


def measure(args: argparse.Namespace, files: Sequence[Candidate], texts: Sequence[Path]) -> list[list[Row]]:
    """The rows of every file, told on stderr one by one."""
    rows = []
    store, kept = Store(), Store(args.base_cache, limit=None) if args.base_cache else None
    for file in files:
        with ggpy.load(file.path, threads=args.threads, context=args.ctx) as model:
            group = []
            for text in texts:
                read = text.read_bytes().decode("utf-8", "replace")
                found = evaluate(model, read, base=args.base, context=args.ctx, chunks=args.chunks, worst=0, store=store, base_store=kept)
                group.append(Row(file, text.stem, found))
                figures = group[-1].comparison
                print(f"{file.name} on {text.stem}: KL {figures.kl_mean:.5f} ± {figures.kl_error:.5f}", file=sys.stderr, flush=True)
        rows.append(group)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="[NAME=]FILE", help="quantized files")
    parser.add_argument("--base", type=Path, required=True, help="what they were quantized from")
    parser.add_argument("--text", type=Path, action="append", required=True, help="a held-out text; may be given again")
    parser.add_argument("--calibration", type=Path, help="the text that files were calibrated on")
    parser.add_argument("--against", metavar="NAME", help="the file whose divergence others are compared with")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=32, help="of each text, at the most")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--base-cache", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    args = parser.parse_args()
    try:
        files = [Candidate.parse(text) for text in args.files]
        names = [file.name for file in files]
        if len(set(names)) < len(names) or (args.against and args.against not in names):
            parser.error(f"files are named {', '.join(names)}: names must differ, and --against be one of them")
        texts = [*args.text, *([args.calibration] if args.calibration else [])]
        rows = measure(args, files, texts)
    except (GGPyError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    for number, text in enumerate(texts):
        told = " (calibrated on it)" if text is args.calibration else ""
        found = rows[0][number].found
        print(
            f"\n{text.stem}{told}: {found.chunks} chunks of {found.context}, base perplexity {rows[0][number].comparison.perplexity:.3f}\n"
        )
        print(table([[group[number]] for group in rows], args.against))
    if len(args.text) > 1:
        print(f"\nall {len(args.text)} held-out texts\n")
        print(table([group[: len(args.text)] for group in rows], args.against))
    if args.json:
        flat = [{**dataclasses.asdict(row.file), "text": row.text, **dataclasses.asdict(row.found)} for group in rows for row in group]
        args.json.write_text(json.dumps(flat, default=str, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
