"""One format's matrix product alone, with weights in cache and from memory: for whoever edits a kernel.

    python tools/bench_dots.py --format q4_k --tokens 1,8,512 [--rows 448 --cols 2048] [--threads 1]

GB/s are bytes of weights, GOP/s multiplications and additions; both beside what this machine does at the most, on as many threads. A pass
multiplies one batch of activations by many matrices, in cache the same one again and again (512 kB if --rows is not given), else as
many as fill --memory. What the rest of a pass takes is measured without them and subtracted. Figures are of the fastest passes. One
thread's time is what it had a processor for, so other programs disturb only its caches; several threads' is that on the wall. Pin the
process (`taskset -c 1`), and quote both formats, or both versions, from one sitting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from random_blocks import random_blocks

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.runtime.compiled import has_kernel
from ggpy.runtime.kv_cache import CacheShape, KVCache
from ggpy.runtime.limits import Clock, multiply_pass, read_pass
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import Program
from ggpy.runtime.recorder import Recorder, Value
from ggpy.runtime.weights import Weight
from ggpy.simd.target import target

CACHED_BYTES = 512 * 1024
FORMATS = [name for name in BLOCKS if has_kernel(name.lower())]


def forward(x: Weight, matrices: list[Weight], head: Weight) -> Callable[[Recorder], Value]:
    """A graph that multiplies rows of `x` by every matrix and makes logits of them, so that it is a whole forward pass."""

    def record(op: Recorder) -> Value:
        tokens = op.embed(x)
        op.linear(tokens, *matrices)
        return op.linear(op.outputs(tokens), head)

    return record


def clock_for(threads: int) -> Clock:
    return time.thread_time if threads == 1 else time.perf_counter


def seconds_per_matrix(matrices: list[Weight], tokens: int, threads: int, seconds: float) -> float:
    """Time that all matrices but the first add to a pass, divided among them."""
    cols = matrices[0].cols
    values = np.random.default_rng(1).standard_normal((64, cols), dtype=np.float32)
    x = Weight("x", BLOCKS["F32"], 64, cols, values.view(np.uint8))
    head = Weight("head", BLOCKS["F32"], 16, cols, values[:16].view(np.uint8))
    pool = ThreadPool(threads)
    cache = KVCache(CacheShape(0, 1, 64), tokens)
    times = []
    for some in (matrices, matrices[:1]):
        program = Program(forward(x, some, head), cache, batch=tokens, outputs=1, pool=pool)
        ids = np.arange(tokens) % 64
        program.run(ids, 0, 1)
        times.append(fastest(lambda program=program, ids=ids: program.run(ids, 0, 1), seconds, clock_for(threads)))
    pool.close()
    return (times[0] - times[1]) / (len(matrices) - 1)


def fastest(run: Callable[[], object], seconds: float, clock: Clock) -> float:
    """Seconds of the fastest of the runs that fit into `seconds`, three at least."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def matrix(data: np.ndarray, block_format: BlockFormat, cols: int) -> Weight:
    return Weight("w", block_format, len(data), cols, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", required=True, help=f"comma-separated: {', '.join(name.lower() for name in FORMATS)}")
    parser.add_argument("--tokens", default="1,2,4,8,64,512", help="batch sizes (default 1,2,4,8,64,512)")
    parser.add_argument("--rows", type=int, help="of each matrix (default: what 512 kB hold)")
    parser.add_argument("--cols", type=int, default=2048, help="values per row (default 2048)")
    parser.add_argument("--memory", type=float, default=400, metavar="MB", help="weights read from memory; 0: only in cache (default 400)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="spent on each figure (default 0.5)")
    args = parser.parse_args()

    formats = args.format.upper().split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        parser.error(f"no product kernel for {', '.join(unknown)}; there are {', '.join(FORMATS)}")
    peak = multiply_pass(args.threads).best(clock=clock_for(args.threads)) / 1e9
    print(f"{target().cpu} ({target().name}), threads {args.threads}; int8 products at the most {peak:.0f} GOP/s")
    print(
        f"{'format':8} {'rows':>6} {'cols':>6} {'tokens':>7} {'µs':>9} {'GB/s':>7} {'GOP/s':>7}   from memory: GB/s, GOP/s; read rate GB/s"
    )
    rng = np.random.default_rng(0)
    for name in formats:
        block_format = BLOCKS[name]
        row_bytes = block_format.row_bytes(args.cols)
        rows = args.rows or max(32, CACHED_BYTES // row_bytes // 32 * 32)
        data = random_blocks(block_format, rows, args.cols, rng, args.threads)
        copies = int(args.memory * 1e6 / data.nbytes)
        many = [matrix(data.copy(), block_format, args.cols) for _ in range(copies)]
        read = read_pass([one.data for one in many], args.threads).best(clock=clock_for(args.threads)) / 1e9 if many else 0.0
        for tokens in (int(word) for word in args.tokens.split(",")):
            repeats = max(4, 256 // tokens)
            in_cache = seconds_per_matrix([matrix(data, block_format, args.cols)] * (1 + repeats), tokens, args.threads, args.seconds)
            operations = 2 * rows * args.cols * tokens / 1e9
            size = data.nbytes / 1e9
            line = f"{name:8} {rows:6} {args.cols:6} {tokens:7} {in_cache * 1e6:9.1f} {size / in_cache:7.1f} {operations / in_cache:7.0f}"
            if len(many) > 1:
                from_memory = seconds_per_matrix(many, tokens, args.threads, args.seconds)
                line += f"   {size / from_memory:17.1f} {operations / from_memory:6.0f} {read:16.1f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
