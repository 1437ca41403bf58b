"""How fast a model runs here: prefill and decode speed, and their share of what the machine could do at the most.

The tests have llama-bench's names and meaning: pp512 evaluates 512 tokens at once from an empty cache and wants the logits of the last;
tg128 evaluates 128 tokens one by one; @d8000 says that 8000 tokens are in the KV cache before. Tokens are random. Each test runs once
unmeasured, then `repetitions` times; quote the median.

Decode reads every weight once per token, and the keys and values of all tokens before it, so its limit is the rate at which memory is
read, on as many threads; prefill multiplies every weight by every token, so its limit is the rate of int8 products (attention not
counted). Passes that measure the limit take turns with the runs, and a share is the median of the runs over the median of the passes.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ggpy
from ggpy.generate import Generator
from ggpy.gguf import GGUFFile, Tensor
from ggpy.runtime.compiled import KernelName, OnCompile
from ggpy.runtime.host import available_threads
from ggpy.runtime.limits import Pass, multiply_pass, read_pass
from ggpy.simd.target import target


@dataclass(frozen=True)
class Result:
    """One test on one number of threads.

    runs: tokens per second of each repetition. unit: of what limits the test, "B" (bytes read) or "op" (multiplications and additions);
    per_token: how many of them a token takes; rates: how many a second the machine allows, one pass before each run and one after the last.
    others: processors' worth of time that went to other processes meanwhile, or None where the system does not say.
    cache_cost: what the tokens in the KV cache add to the time of a decoded token, as a multiple of the time that reading their keys
    and values takes; None without a --depth.
    """

    test: str
    threads: int
    depth: int
    runs: tuple[float, ...]
    unit: str
    per_token: float
    rates: tuple[float, ...]
    others: float | None
    cache_cost: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def limit(self) -> float:
        """Tokens per second at the median of the rates."""
        return statistics.median(self.rates) / self.per_token

    @property
    def share_of_limit(self) -> float:
        """Median speed as a share of the limit."""
        return self.tokens_per_second / self.limit


@dataclass(frozen=True)
class Report:
    """What `bench` found. kernels: those the model runs on, (format or op, function)."""

    kernels: tuple[KernelName, ...]
    results: tuple[Result, ...]


@dataclass(frozen=True)
class _Test:
    """A test ready to run: `run` evaluates `tokens` tokens, and leaves things so that it can run again."""

    name: str
    depth: int
    tokens: int
    per_token: float
    run: Callable[[], None]


def bench(
    path: str | os.PathLike[str],
    *,
    prefill: int = 512,
    decode: int = 128,
    depth: int = 0,
    threads: Iterable[int] | None = None,
    repetitions: int = 5,
    on_result: Callable[[Result], None] | None = None,
    on_compile: OnCompile | None = None,
) -> Report:
    """Measure the model at `path`: per number of threads (default: those available) a Result for prefill, then for decode.

    A length of 0 leaves that test out. depth: measure both again with so many tokens in the KV cache; runs from there and from an empty
    cache take turns. on_result is called with each result as it comes, on_compile as by `ggpy.load`.
    """
    results: list[Result] = []
    kernels: tuple[KernelName, ...] = ()
    for count in threads or (available_threads(),):
        with ggpy.load(path, threads=count, context=1, on_compile=on_compile) as model:
            bench = _Bench(model, max(prefill, decode, 1), depth)
            kernels = bench.kernels
            for result in bench.results(prefill, decode, repetitions):
                results.append(result)
                if on_result is not None:
                    on_result(result)
            bench.close()
    return Report(kernels, tuple(results))


class _Bench:
    """The tests of one model on one number of threads; a sequence for each depth, filled that far."""

    def __init__(self, model: ggpy.Model, length: int, depth: int):
        self._model = model
        self._tokens = np.random.default_rng(0).integers(0, model.tokenizer.n_vocab, depth + length).tolist()
        self._sequences: dict[int, Generator] = {}
        for filled in dict.fromkeys((0, depth)):
            self._sequences[filled] = model.generator(filled + length)
            if filled:
                self._sequences[filled].prefill(self._tokens[:filled])
        self._read, self._multiplied = _weights(model.file)

    @property
    def kernels(self) -> tuple[KernelName, ...]:
        return self._sequences[0].program.kernels

    def close(self) -> None:
        for sequence in self._sequences.values():
            sequence.close()

    def results(self, prefill: int, decode: int, repetitions: int) -> Iterable[Result]:
        threads = self._model.threads
        if prefill:
            yield from _measure([self._prefill(n, prefill) for n in self._sequences], "op", multiply_pass(threads), threads, repetitions)
        if decode:
            read = read_pass([tensor.data for tensor in self._read], threads)
            yield from _measure([self._decode(n, decode) for n in self._sequences], "B", read, threads, repetitions)

    def _prefill(self, depth: int, count: int) -> _Test:
        sequence = self._sequences[depth]

        def run() -> None:
            sequence.rewind(depth)
            sequence.prefill(self._tokens[: depth + count])

        return _Test(_name("pp", count, depth), depth, count, 2 * sum(tensor.n_values for tensor in self._multiplied), run)

    def _decode(self, depth: int, count: int) -> _Test:
        sequence = self._sequences[depth]

        def run() -> None:
            sequence.rewind(depth)
            for token in self._tokens[depth : depth + count]:
                sequence.decode(token)

        positions = depth + (count + 1) / 2  # a token attends to itself and those before it
        return _Test(_name("tg", count, depth), depth, count, _n_bytes(self._read) + positions * self._position_bytes(), run)

    def _position_bytes(self) -> int:
        return self._model.network.shape.bytes_per_position()


def _name(kind: str, count: int, depth: int) -> str:
    return f"{kind}{count}@d{depth}" if depth else f"{kind}{count}"


def _weights(file: GGUFFile) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors a decoded token reads, and the matrices each token of a prefill is multiplied by (the output's only the last one)."""
    embedding, output = "token_embd.weight", "output.weight"
    table = file.tensors.values()
    read = [t for t in table if t.name != embedding or output not in file.tensors]
    return read, [t for t in table if t.name not in (embedding, output) and len(t.shape) > 1]


def _n_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.data.nbytes for tensor in tensors)


def _measure(tests: Sequence[_Test], unit: str, limit: Pass, threads: int, repetitions: int) -> Iterable[Result]:
    """Run the tests in turn, a pass of the limit before each round and after the last."""
    limit()
    for test in tests:
        test.run()  # warm: pages mapped, buffers touched
    runs: dict[str, list[float]] = {test.name: [] for test in tests}
    cpu, wall, own = _busy_seconds(), time.perf_counter(), time.process_time()
    rates = [limit()]
    for _ in range(repetitions):
        for test in tests:
            start = time.perf_counter()
            test.run()
            runs[test.name].append(test.tokens / (time.perf_counter() - start))
        rates.append(limit())
    wall, own, busy = time.perf_counter() - wall, time.process_time() - own, _busy_seconds()
    others = None if cpu is None or busy is None else max(0.0, (busy - cpu - own) / wall)
    for test in tests:
        cost = _cache_cost(tests[0], test, runs, rates) if unit == "B" and test.depth else None
        yield Result(test.name, threads, test.depth, tuple(runs[test.name]), unit, test.per_token, tuple(rates), others, cost)


def _cache_cost(empty: _Test, deep: _Test, runs: dict[str, list[float]], rates: Sequence[float]) -> float:
    """Median over the rounds of the seconds a token takes more, over the seconds that reading what it reads more takes."""
    rounds = zip(runs[empty.name], runs[deep.name], rates, rates[1:], strict=False)
    more = deep.per_token - empty.per_token
    return statistics.median((1 / slow - 1 / fast) * (before + after) / 2 / more for fast, slow, before, after in rounds)


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
