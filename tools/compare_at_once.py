"""Whether evaluating several chunks of a text at once is faster than one after the other with all threads: a table in Markdown.

    python tools/compare_at_once.py MODEL.gguf --text FILE [--base BASE.gguf] [--ctx 512] [--chunks 4] [--threads 2] [--rounds 5]

With --at-once N, N chunks are at work at a time, each with its share of the threads. All take turns in every round; a ratio is the median
of rounds, with the smallest and largest. Nothing is kept between runs. Figures are the same in all, which is checked.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from comparison import in_turn, markdown, round_ratios, spread

import ggpy
from ggpy.evaluate import evaluate
from ggpy.runtime.host import available_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text = args.text.read_bytes().decode("utf-8", "replace")
    seconds: dict[str, list[float]] = {str(count): [] for count in args.at_once}
    figures = set()
    with ggpy.load(args.model, threads=args.threads, context=args.ctx) as model:
        base = ggpy.load(args.base, threads=args.threads, context=args.ctx) if args.base else None
        for turn in range(args.rounds + 1):
            for name in in_turn(list(seconds), turn):
                start = time.perf_counter()
                found = evaluate(model, text, base=base, context=args.ctx, chunks=args.chunks, at_once=int(name), worst=0)
                if turn:  # the first round brings the files into the page cache
                    seconds[name].append(time.perf_counter() - start)
                figures.add((found.perplexity, found.comparison))
        if base is not None:
            base.close()
    first, tokens = seconds[str(args.at_once[0])], args.chunks * args.ctx
    rows = [[name, spread([tokens / one for one in times], 0), spread(round_ratios(first, times), 2)] for name, times in seconds.items()]
    print(markdown(["chunks at once", "tokens/s", "ratio"], rows))
    if len(figures) > 1:
        raise SystemExit("the figures differ")


if __name__ == "__main__":
    main()
