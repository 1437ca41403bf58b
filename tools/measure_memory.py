"""What a model takes beside its mapped file and its KV cache, at the highest point of a prefill of 512 tokens and some decoding.

    python tools/measure_memory.py model.gguf --ctx 4096 --max 150

Counted is the most that was ever resident (VmHWM), everything included: Python, NumPy, the vocabulary, buffers, code. Taken off are two
things, as they are at the end: the resident pages of the mapped model file (Rss of its mapping in smaps), and the resident pages of the KV
cache (by /proc/self/pagemap). Neither shrinks on the way, so the peak without them is not higher than what is shown. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

MB = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--ctx", type=int, default=4096)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt (default 512)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens decoded after it (default 32)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max", type=float, help="MB; more is a failure (exit code 1)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args)))
        return 0
    # Twice, each in a process of its own: the first may have kernels to compile, which takes numba's memory.
    command = [
        sys.executable,
        __file__,
        args.model,
        "--child",
        *(f"--{k}={getattr(args, k)}" for k in ("ctx", "prompt", "tokens", "threads")),
    ]
    for _ in range(2):
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    stages = json.loads(run.stdout)
    print(f"{'':28}{'peak':>8}{'now':>8}{'file':>8}{'cache':>8}{'beside':>8}   MB")
    for stage in stages:
        print(f"{stage['stage']:28}" + "".join(f"{stage[key] / MB:8.1f}" for key in ("peak", "now", "file", "cache", "beside")))
    beside = stages[-1]["beside"] / MB
    print(f"{beside:.1f} MB beside the mapped file and the KV cache")
    return 1 if args.max is not None and beside > args.max else 0


def measure(args: argparse.Namespace) -> list[dict[str, float]]:
    """Figures in bytes after each stage, the last at the end."""
    stages: list[dict] = []
    cached: list[np.ndarray] = []

    def note(stage: str) -> None:
        now, peak, file = memory(args.model)
        cache = sum(map(resident, cached))
        stages.append({"stage": stage, "peak": peak, "now": now, "file": file, "cache": cache, "beside": peak - file - cache})

    note("interpreter and numpy")
    import ggpy
    from ggpy.sampling import Sampler

    with ggpy.load(args.model, threads=args.threads, context=args.ctx) as model:
        note("model loaded")
        words = [i for i in range(min(300, model.config.n_vocab // 2), model.config.n_vocab) if i not in model.tokenizer.end_ids]
        words = (words * args.prompt)[: args.prompt] if len(words) < args.prompt else words[: args.prompt]
        ids = model.tokenize("".join(model.detokenize([i]) for i in words), bos=True)
        ids = (ids + words)[: args.prompt]
        note("text tokenized")
        generator = model.generator()
        cached += [*generator.program.cache.keys, *generator.program.cache.values]
        generator.prefill(ids)
        note(f"prefill of {len(ids)}")
        sampler = Sampler(seed=1)
        count = sum(1 for _ in generator.generate(ids, sampler, args.tokens))
        note(f"decoded {count}")
    return stages


def resident(array: np.ndarray) -> int:
    """Bytes of an array's pages that are in memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    first, last = array.ctypes.data // page, -(-(array.ctypes.data + array.nbytes) // page)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(8 * first)
        entries = np.frombuffer(file.read(8 * (last - first)), np.uint64)
    return int(np.count_nonzero(entries >> np.uint64(63))) * page


def memory(model: str) -> tuple[int, int, int]:
    """(resident now, at most so far, of the model's mapping), in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    file, inside, wanted = 0, False, os.fspath(Path(model).resolve())
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(wanted)
        elif inside and line.startswith("Rss:"):
            file += int(line.split()[1]) * 1024
    return int(status["VmRSS"].split()[0]) * 1024, int(status["VmHWM"].split()[0]) * 1024, file


if __name__ == "__main__":
    sys.exit(main())
