"""How fast weights are encoded: ggpy-convert against llama-quantize on the same file, and the encoders alone; tables in Markdown.

    python tools/make_synthetic.py 1b-layers f32 INPUT.gguf
    python tools/compare_quantize.py INPUT.gguf --llama-quantize PATH [--types q4_k_s,q6_k,q8_0] [--threads 2] [--scratch DIR]

Whole programs: from start to end, INPUT (F32 or F16) in the page cache, the output in a temporary folder in --scratch (default: beside
INPUT; one in memory keeps the disk out of it). MB/s are of INPUT. ggpy-convert also reads its file back, and sums it up for that;
`--ggpy-args=--no-verify` leaves it out. Both write the same bytes, which is checked. Shape 1b-layers is 96 % Q4_K as q4_k_s.

Encoders alone: float32 in memory, one format throughout, MB/s of float32; llama.cpp's is called in the library beside the binary, half
the rows on each thread as llama-quantize does it. Both take turns; ratios are medians of rounds, with the smallest and largest. Any
formats, without INPUT, and with importance where bytes depend on it:

    python tools/compare_quantize.py --llama-quantize PATH --formats Q4_K,IQ4_NL [--importance] [--threads 2]
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from comparison import ggpy_command, ggpy_environment, markdown, round_ratios, run_text, spread

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.converter.recipes import find_recipe
from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf
from ggpy.runtime.encode import encode_rows

ROWS, COLS = 4096, 4096  # of the encoders' input: 64 MB
NAMES = ("ggpy", "llama.cpp")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def same_tensors(a: Path, b: Path) -> bool:
    """Whether two files hold the same tensors, byte for byte."""
    with open_gguf(a) as first, open_gguf(b) as second:
        if first.tensors.keys() != second.tensors.keys():
            return False
        pairs = [(tensor, second.tensors[name]) for name, tensor in first.tensors.items()]
        return all(x.format is y.format and np.array_equal(x.data, y.data) for x, y in pairs)


def compare_programs(args: argparse.Namespace, type: str) -> tuple[dict[str, list[float]], bool]:
    """Seconds of each round, and whether both wrote the same tensors."""
    times: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=args.scratch or args.input.parent) as folder:
        ours, theirs = Path(folder) / "ggpy.gguf", Path(folder) / "llama.gguf"
        options = ["-o", ours, "-t", type, "--threads", args.threads, "--force", *args.ggpy_args]
        commands = {
            "ggpy": (ggpy_command("convert", args.input, *options), ggpy_environment()),
            "llama.cpp": ([str(args.llama_quantize), str(args.input), str(theirs), type.upper(), str(args.threads)], None),
        }
        for turn in range(args.rounds + 1):
            for name in NAMES if turn % 2 else reversed(NAMES):
                taken = seconds(lambda name=name: run_text(*commands[name]))
                if turn:  # the first round brings the input into the page cache and compiles encoders
                    times[name].append(taken)
        return times, same_tensors(ours, theirs)


def ggml_quantize(
    library: ctypes.CDLL, block_format: BlockFormat, values: np.ndarray, out: np.ndarray, threads: int, importance: np.ndarray | None
) -> None:
    """llama.cpp's encoder, a share of the rows on each thread."""
    rows, cols = values.shape
    weights = None if importance is None else importance.ctypes.data
    bounds = [rows * i // threads for i in range(threads + 1)]

    def share(first: int, last: int) -> None:
        library.ggml_quantize_chunk(block_format.ggml_type, values.ctypes.data, out.ctypes.data, first * cols, last - first, cols, weights)

    workers = [threading.Thread(target=share, args=pair) for pair in pairwise(bounds)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def compare_encoders(args: argparse.Namespace, library: ctypes.CDLL, block_format: BlockFormat) -> tuple[dict[str, list[float]], bool]:
    """Seconds of each round, and whether both made the same bytes."""
    values = np.random.default_rng(0).standard_normal((ROWS, COLS), dtype=np.float32) * np.float32(0.02)
    importance = np.random.default_rng(1).exponential(size=COLS).astype(np.float32) if args.importance else None
    ours, theirs = (np.empty((ROWS, block_format.row_bytes(COLS)), np.uint8) for _ in NAMES)
    encoders = {
        "ggpy": lambda: encode_rows(values, block_format, args.threads, ours, importance),
        "llama.cpp": lambda: ggml_quantize(library, block_format, values, theirs, args.threads, importance),
    }
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(args.rounds + 1):
        for name in NAMES:
            taken = seconds(encoders[name])
            if turn:
                times[name].append(taken)
    return times, np.array_equal(ours, theirs)


def load_library(binary: Path) -> ctypes.CDLL:
    """llama.cpp's library of encoders, where its build keeps it. SystemExit where it is not."""
    folders = (binary.resolve().parent, binary.resolve().parent.parent / "lib")
    found = [path for folder in folders for suffix in ("so", "dylib") if (path := folder / f"libggml-base.{suffix}").is_file()]
    if not found:
        raise SystemExit(f"no libggml-base beside {binary}: the encoders alone need a build with shared libraries (or --no-encoders)")
    library = ctypes.CDLL(str(found[0]))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def row(name: str, times: dict[str, list[float]], equal: bool, n_bytes: float) -> list[str]:
    """A line of a table: MB/s of both, the ratio of ggpy to llama.cpp, whether the bytes agree."""
    speeds = [spread([n_bytes / 1e6 / taken for taken in times[who]], 0) for who in NAMES]
    return [name, *speeds, spread(round_ratios(times["llama.cpp"], times["ggpy"]), 2), "the same" if equal else "**differ**"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", metavar="INPUT.gguf")
    parser.add_argument("--llama-quantize", type=Path, required=True, metavar="PATH")
    parser.add_argument("--types", default="q4_k_s,q6_k,q8_0", help="as ggpy-convert's -t (default: q4_k_s,q6_k,q8_0)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where outputs are written and removed (default: beside INPUT)")
    parser.add_argument("--ggpy-args", type=str.split, default=[], metavar="ARGS", help="passed on to ggpy-convert")
    parser.add_argument("--no-encoders", action="store_true", help="only whole programs")
    parser.add_argument("--formats", type=lambda names: names.split(","), help="block formats of the encoders alone; no whole programs")
    parser.add_argument("--importance", action="store_true", help="encoders alone: with importance")
    args = parser.parse_args(argv)
    if args.formats:
        if unknown := [name for name in args.formats if name not in BLOCKS]:
            parser.error(f"no block format {unknown[0]}")
        formats, recipes = args.formats, {}
    elif args.input is None:
        parser.error("say which INPUT.gguf, or --formats")
    elif not args.input.is_file():
        parser.error(f"no file {args.input}")
    else:
        try:
            recipes = {type: find_recipe(type) for type in args.types.split(",")}
        except GGPyError as error:
            parser.error(str(error))
        formats = list(dict.fromkeys(recipe.default for recipe in recipes.values()))
    library = None if args.no_encoders else load_library(args.llama_quantize)

    columns = ["ggpy, MB/s", "llama.cpp, MB/s", "ratio", "bytes"]
    if recipes:
        size, rows = args.input.stat().st_size, []
        for type in recipes:
            print(f"{type}: {args.rounds} rounds of both programs", file=sys.stderr, flush=True)
            rows.append(row(type, *compare_programs(args, type), size))
        print(f"{args.input.name}, {size / 1e6:.0f} MB, {args.threads} threads, {args.rounds} rounds: whole programs\n")
        print(markdown(["type", *columns], rows))
    if library:
        rows = [row(name, *compare_encoders(args, library, BLOCKS[name]), 4 * ROWS * COLS) for name in formats]
        how = f"{args.threads} threads, {args.rounds} rounds: encoders alone{', with importance' if args.importance else ''}"
        print(f"\n{ROWS} × {COLS} float32 in memory, {how}\n")
        print(markdown(["format", *columns], rows))


if __name__ == "__main__":
    main()
