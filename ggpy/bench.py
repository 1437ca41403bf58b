"""How fast a model runs here: prefill and decode speed, and their share of what the machine could do at the most.

The tests have llama-bench's names and meaning: pp512 evaluates 512 tokens at once from an empty cache and wants the logits of the last;
tg128 evaluates 128 tokens one by one. Tokens are random. Each test runs once unmeasured, then `repetitions` times; quote the median.

Decode reads every weight once per token, so its limit is the rate at which these bytes are read, on as many threads; prefill multiplies
every weight by every token, so its limit is the rate of int8 products. Both are measured on the spot. What else a token costs
(attention, the KV cache) is not in the limits.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ggpy
from ggpy.gguf import GGUFFile, Tensor, open_gguf
from ggpy.runtime.host import available_threads
from ggpy.runtime.limits import multiply_pass, read_pass
from ggpy.simd.target import target


@dataclass(frozen=True)
class Result:
    """One test on one number of threads. runs: tokens per second of each repetition; limit: what the machine allows, or None.

    others: processors' worth of time that went to other processes while the test ran, or None where the system does not say.
    """

    test: str
    threads: int
    runs: tuple[float, ...]
    limit: float | None
    others: float | None

    @property
    def tokens_per_second(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def share_of_limit(self) -> float | None:
        """Median speed as a share of the limit."""
        return self.tokens_per_second / self.limit if self.limit else None


def bench(
    path: str | os.PathLike[str],
    *,
    prefill: int = 512,
    decode: int = 128,
    threads: Iterable[int] | None = None,
    repetitions: int = 5,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Measure the model at `path`: a Result per number of threads (default: those available) for prefill, then for decode.

    A length of 0 leaves that test out. on_result is called with each result as it comes.
    """
    results = []
    with open_gguf(path) as file:
        for count in threads or (available_threads(),):
            for result in _bench_threads(file, count, prefill, decode, repetitions):
                results.append(result)
                if on_result is not None:
                    on_result(result)
    return results


def _bench_threads(file: GGUFFile, threads: int, prefill: int, decode: int, repetitions: int) -> Iterable[Result]:
    n_tokens = max(prefill, decode, 1)
    with ggpy.load(file.path, threads=threads, context=n_tokens) as model:
        generator = model.generator()
        tokens = np.random.default_rng(0).integers(0, model.tokenizer.n_vocab, n_tokens).tolist()
        read_per_token, multiplied_per_token = _weights(file)

        def run_prefill() -> None:
            generator.rewind(0)
            generator.prefill(tokens[:prefill])

        def run_decode() -> None:
            generator.rewind(0)
            for token in tokens[:decode]:
                generator.decode(token)

        if prefill:
            operations = 2 * sum(tensor.n_values for tensor in multiplied_per_token)
            limit = multiply_pass(threads).best() / operations
            yield _measure(f"pp{prefill}", threads, limit, run_prefill, prefill, repetitions)
        if decode:
            ranges = [tensor.data for tensor in read_per_token]
            limit = read_pass(ranges, threads).best() / sum(data.nbytes for data in ranges)
            yield _measure(f"tg{decode}", threads, limit, run_decode, decode, repetitions)
        generator.close()


def _weights(file: GGUFFile) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors a decoded token reads, and the matrices each token of a prefill is multiplied by (the output's only the last one)."""
    embedding, output = "token_embd.weight", "output.weight"
    table = file.tensors.values()
    read = [t for t in table if t.name != embedding or output not in file.tensors]
    return read, [t for t in table if t.name not in (embedding, output) and len(t.shape) > 1]


def _measure(test: str, threads: int, limit: float, run: Callable[[], None], tokens: int, repetitions: int) -> Result:
    run()  # warm: pages mapped, buffers touched
    runs, cpu, wall, own = [], _busy_seconds(), time.perf_counter(), time.process_time()
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        runs.append(tokens / (time.perf_counter() - start))
    wall, own = time.perf_counter() - wall, time.process_time() - own
    busy = _busy_seconds()
    others = None if cpu is None or busy is None else max(0.0, (busy - cpu - own) / wall)
    return Result(test, threads, tuple(runs), limit, others)


def _busy_seconds() -> float | None:
    """Processor time that all processes have taken since boot, stolen time included; None where the system does not say."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, interrupts, soft_interrupts, steal = (int(word) for word in line.split()[1:9])
    return (user + nice + system + interrupts + soft_interrupts + steal) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """What a measurement must be quoted with: processor, processors granted, lowering, load, versions."""
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_name(),
        "available_threads": available_threads(),
        "lowering": target().lowering,
        "load": load,
        "ggpy": ggpy.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
