"""What ggpy-pick foretells against what comes of it: files picked at recipes' sizes beside those recipes; tables in Markdown.

    python tools/compare_picker.py SRC --text held-out.txt,other.txt [--types q4_k_m,q4_0] [--chunks 16] [--threads 2] [--scratch DIR]

For every type: the file of the recipe, and the one that is picked at its size. KL divergence from SRC at 16 bits, in nats per token: as
foretold from the text measured on (--pick-text, by default the bundled one), and on each held-out text, in chunks of --ctx tokens; in
brackets the picked file's as a multiple of the recipe's, chunk by chunk, with twice the standard error. Decoding speed: as foretold, and as
measured by decoding with each file in turn. With one thread the time is that which it had a processor for; with several it is that on
the wall, and the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from comparison import markdown

import ggpy
from ggpy.converter import Progress, convert
from ggpy.converter.options import Options
from ggpy.evaluate import evaluate
from ggpy.picker.choice import Pick, Target
from ggpy.picker.front import Point
from ggpy.picker.pick import pick
from ggpy.picker.speed import decode_seconds, random_ids

ROUNDS = 7
said = [0.0]  # when progress was shown last


@dataclass(frozen=True)
class File:
    """A converted file and what was foretold of it."""

    label: str
    path: Path
    point: Point


def say(progress: Progress) -> None:
    if time.monotonic() - said[0] > 20:
        said[0] = time.monotonic()
        print(f"{progress.stage}: {progress.what} ({progress.done / max(1, progress.total):.0%})", file=sys.stderr, flush=True)


def make_files(args: argparse.Namespace, scratch: Path) -> tuple[Path, list[tuple[File, File]], Pick]:
    """The source at 16 bits, and for every type (the recipe's file, the one picked at its size)."""
    options = Options(threads=args.threads, on_progress=say, imatrix=args.imatrix)
    text = args.pick_text.read_text(encoding="utf-8", errors="replace") if args.pick_text else None
    whole = pick(args.src, Target(), options, text=text)
    recipes = {point.label: point for point in whole.recipes}
    pairs = []
    for name in args.types.upper().split(","):
        if name not in recipes:
            sys.exit(f"{name} is none of the recipes that were measured: {', '.join(recipes)}")
        found = pick(args.src, Target(file_bytes=recipes[name].file_bytes), options, text=text)
        made = []
        for label, type, overrides, point in (
            (name, name, (), recipes[name]),
            (f"picked at {name}'s size", found.recipe, found.overrides, found.chosen),
        ):
            path = scratch / f"{len(pairs)}-{len(made)}.gguf"
            report = convert(args.src, path, type, overrides=overrides, imatrix=args.imatrix, force=True, allow_uncertified=True)
            assert report.file_bytes == point.file_bytes, (report.file_bytes, point)
            made.append(File(label, path, point))
        pairs.append((made[0], made[1]))
    base = args.src if args.src.is_file() else convert(args.src, scratch / "base.gguf", args.base_type, force=True, verify="bytes").path
    return base, pairs, whole


def divergences(path: Path, base: Path, texts: list[Path], args: argparse.Namespace) -> list[tuple[np.ndarray, float]]:
    """By text: the mean KL of every chunk, and the share of positions with the same first choice."""
    found = []
    with (
        ggpy.load(base, threads=args.threads, context=args.ctx) as first,
        ggpy.load(path, threads=args.threads, context=args.ctx) as second,
    ):
        for text in texts:
            content = text.read_text(encoding="utf-8", errors="replace")
            comparison = evaluate(second, content, base=first, context=args.ctx, chunks=args.chunks).comparison
            assert comparison is not None
            found.append((np.array(comparison.kl_chunks), comparison.top1))
            print(f"{path.name} {text.name}: KL {comparison.kl_mean:.5f}", file=sys.stderr, flush=True)
    return found


def measured_speeds(files: list[File], threads: int | None) -> list[float]:
    """Tokens per second of each, by the median of rounds in which all take turns."""
    with ExitStack() as stack:
        generators, seconds = [], [[] for _ in files]
        for file in files:
            model = stack.enter_context(ggpy.load(file.path, threads=threads, context=256))
            generator = model.generator()
            stack.callback(generator.close)
            generators.append((generator, random_ids(model.config.n_vocab)))
        for _ in range(ROUNDS):
            for (generator, ids), own in zip(generators, seconds, strict=True):
                own.append(decode_seconds(generator, ids, 16))
    return [1 / statistics.median(own) for own in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=Path, help="a checkpoint directory or a GGUF file")
    parser.add_argument("--text", required=True, help="comma-separated files to judge on")
    parser.add_argument("--types", default="q4_k_m,q4_0")
    parser.add_argument("--pick-text", type=Path)
    parser.add_argument("--imatrix", type=Path, help="for all files")
    parser.add_argument("--base-type", default="bf16", help="of the file that SRC becomes to compare with (default bf16)")
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    texts = [Path(name) for name in args.text.split(",")]
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        base, pairs, whole = make_files(args, Path(scratch))
        files = [file for pair in pairs for file in pair]
        speeds = dict(zip(files, measured_speeds(files, args.threads), strict=True))
        rows = []
        for plain, picked in pairs:
            plain_kl, picked_kl = (divergences(file.path, base, texts, args) for file in (plain, picked))
            for file, kl in ((plain, plain_kl), (picked, picked_kl)):
                cells = [file.label, str(file.point.file_bytes), f"{file.point.bits_per_weight:.3f}", f"{file.point.kl:.4f}"]
                for i, (chunks, top1) in enumerate(kl):
                    ratio = ""
                    if file is picked:
                        ratio = f" ({paired_ratio(chunks, plain_kl[i][0])})"
                    cells.append(f"{chunks.mean():.4f}, {top1:.1%}{ratio}")
                foretold, measured = file.point.tokens_per_second, speeds[file]
                rows.append([*cells, f"{foretold:.2f}", f"{measured:.2f}", f"{foretold / measured - 1:+.1%}"])
    names = ["file", "bytes", "bits per weight", "KL foretold", *(f"KL, same first choice: {t.stem}" for t in texts)]
    print(markdown([*names, "tokens/s foretold", "measured", "off by"], rows))
    print(f"\nKL of all tensors at once, on the text measured on ({whole.tokens} tokens scored):\n")
    print(markdown(["sum of single tensors", "measured"], [[f"{s:.4g}", f"{m:.4g}"] for s, m in whole.curve.measured]))


def paired_ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The mean of `ours` as a multiple of that of `theirs`, with twice the standard error, from the same chunks."""
    ratio = ours.mean() / theirs.mean()
    spread = (ours - ratio * theirs).std(ddof=1) / np.sqrt(len(ours)) / theirs.mean() if len(ours) > 1 else 0.0
    return f"{ratio:.2f} ± {2 * spread:.2f} ×"


if __name__ == "__main__":
    main()
