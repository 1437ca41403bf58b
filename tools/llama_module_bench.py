"""`llama-bench` for llama.cpp's Python modules: its options and its JSON, as far as comparisons need them.

    python tools/llama_module_bench.py llama_cpp -m MODEL.gguf [-p 512] [-n 128] [-d 0,8000] [-t 1,2] -r 1 -o json [--repack 0]

llama_cpp is llama-cpp-python, xllamacpp the prebuilt wheel of that name. Tests and warm-up are llama-bench's. xllamacpp is measured
through its server, which samples and formats each token, too: a few µs of the milliseconds that one takes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import time
from typing import Any, Protocol


class Engine(Protocol):
    """A loaded model. Seconds that it takes to evaluate what follows the first `depth` tokens of `ids`."""

    def prefill(self, ids: list[int], depth: int) -> float: ...
    def decode(self, ids: list[int], depth: int) -> float: ...


class LlamaCppPython:
    def __init__(self, model: str, context: int, threads: int, options: argparse.Namespace):
        import llama_cpp  # pyright: ignore[reportMissingImports]

        if options.repack == "0":
            raise SystemExit("llama_cpp has no setting against repacking: leave out mode norepack")
        self._model = llama_cpp.Llama(model, n_ctx=context, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False,
                                      flash_attn=options.flash_attn != "off")  # fmt: skip

    def _rewind(self, ids: list[int], depth: int) -> None:
        if self._model.n_tokens < depth:
            self._model.eval(ids[self._model.n_tokens : depth])
        self._model.n_tokens = depth

    def prefill(self, ids: list[int], depth: int) -> float:
        self._rewind(ids, depth)
        start = time.perf_counter()
        self._model.eval(ids[depth:])
        return time.perf_counter() - start

    def decode(self, ids: list[int], depth: int) -> float:
        self._rewind(ids, depth)
        start = time.perf_counter()
        for token in ids[depth:]:
            self._model.eval([token])
        return time.perf_counter() - start


class XLlamaCpp:
    def __init__(self, model: str, context: int, threads: int, options: argparse.Namespace):
        xllamacpp: Any = importlib.import_module("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = model
        params.n_ctx, params.n_parallel, params.verbosity, params.cache_ram_mib = context, 1, -1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.no_extra_bufts = options.repack == "0"
        if options.flash_attn == "off":
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def _complete(self, ids: list[int], count: int) -> dict[str, Any]:
        asked = {"prompt": ids, "n_predict": count, "cache_prompt": True, "ignore_eos": True, "temperature": 0}
        answer = self._server.handle_completions(asked)
        if "timings" not in answer:
            raise SystemExit(f"xllamacpp: {answer}")
        return answer["timings"]

    def _fill(self, ids: list[int], depth: int) -> None:
        """Let the cache begin with `depth` of ids and nothing else of them: the prompt before it shares nothing with what follows."""
        self._complete([*ids[:depth], (ids[depth] + 1) % 1000 + 3], 1)

    def prefill(self, ids: list[int], depth: int) -> float:
        self._fill(ids, depth)
        timings = self._complete(ids, 1)
        return timings["prompt_ms"] / 1e3 * (len(ids) - depth) / timings["prompt_n"]

    def decode(self, ids: list[int], depth: int) -> float:
        count = len(ids) - depth
        timings = self._complete(ids[: depth + 1], count + 1)
        return timings["predicted_ms"] / 1e3 * count / (timings["predicted_n"] - 1)  # the clock starts with the first token there


ENGINES = {"llama_cpp": LlamaCppPython, "xllamacpp": XLlamaCpp}


def numbers(words: str) -> list[int]:
    return [int(word) for word in words.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", choices=ENGINES)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-p", "--n-prompt", type=int, default=512)
    parser.add_argument("-n", "--n-gen", type=int, default=128)
    parser.add_argument("-d", "--n-depth", type=numbers, default=[0])
    parser.add_argument("-t", "--threads", type=numbers, default=[1])
    parser.add_argument("-r", "--repetitions", type=int, default=5)
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    parser.add_argument("--repack", choices=["0", "1"], default="1")
    parser.add_argument("--flash-attn", choices=["on", "off", "auto"], default="auto")
    args = parser.parse_args()

    source, rows = random.Random(0), []
    for threads in args.threads:
        context = max(args.n_depth) + max(args.n_prompt, args.n_gen) + 64
        try:
            engine: Engine = ENGINES[args.module](args.model, context, threads, args)
        except ImportError as error:
            raise SystemExit(f"the Python module {args.module} is not there: {error}") from None
        for depth in args.n_depth:
            for kind, count in (("prefill", args.n_prompt), ("decode", args.n_gen)):
                if not count:
                    continue
                ids = [source.randrange(3, 1000) for _ in range(depth + count)]
                run = getattr(engine, kind)
                run(ids[: depth + (count if kind == "prefill" else 1)], depth)  # warm, as llama-bench does it
                samples = [count / run(ids, depth) for _ in range(args.repetitions)]
                n_prompt, n_gen = (count, 0) if kind == "prefill" else (0, count)
                row = {"n_prompt": n_prompt, "n_gen": n_gen, "n_depth": depth, "n_threads": threads}
                rows.append(row | {"avg_ts": sum(samples) / len(samples), "samples_ts": samples})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
