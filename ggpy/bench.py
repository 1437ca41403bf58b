"""How fast a model runs here: prefill and decode speed, and their share of what the machine could do at the most.

The tests have llama-bench's names and meaning: pp512 evaluates 512 tokens at once from an empty cache and wants the logits of the last;
tg128 evaluates 128 tokens one by one; @d8000 says that 8000 tokens are in the KV cache before, x8 that eight sequences get 128 tokens
each, one of each sequence in a pass. Tokens are random. Each test runs once unmeasured, then `repetitions` times; quote the median.

A pass reads every weight, and the keys and values of all tokens before, and multiplies every weight by every token (attention is not
counted). Of a mixture's experts those count that tokens go to, as if each chose at random. What takes longer at the rates of this machine,
on as many threads, is the limit: reading memory for decode, products for prefill (of int8, or of bfloat16 in AMX tiles, as the kernels do
them). Passes that measure the rates take turns with the runs, and a share is the median of the runs over the median of the passes.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ggpy
from ggpy.batch import BatchGenerator
from ggpy.generate import Generator
from ggpy.gguf import GGUFFile, Tensor
from ggpy.runtime.compiled import KernelName, OnCompile
from ggpy.runtime.host import available_threads
from ggpy.runtime.limits import Pass, product_pass, read_pass
from ggpy.simd.target import target


@dataclass(frozen=True)
class Result:
    """One test on one number of threads.

    depth: tokens in the KV cache before; sequences: decoded together. runs: tokens per second of each repetition, of all sequences.
    unit: of what limits the test, "B" (bytes read) or "op" (multiplications and additions); per_token: how many of them a token takes;
    rates: how many a second the machine allows, one pass before each run and one after the last.
    others: processors' worth of time that went to other processes meanwhile, or None where the system does not say.
    cache_cost: what the tokens in the KV cache add to the time of a decoded token, as a multiple of the time that reading their keys
    and values takes; None without depth. gain: tokens per second over those of one sequence; None for one sequence.
    """

    test: str
    threads: int
    depth: int
    sequences: int
    runs: tuple[float, ...]
    unit: str
    per_token: float
    rates: tuple[float, ...]
    others: float | None
    cache_cost: float | None = None
    gain: float | None = None

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
    """A test ready to run: `run` evaluates `tokens` tokens, and leaves things so that it can run again. n_bytes, operations: per token."""

    name: str
    depth: int
    sequences: int
    tokens: int
    n_bytes: float
    operations: float
    run: Callable[[], None]

    def needs(self, unit: str) -> float:
        return self.n_bytes if unit == "B" else self.operations


def bench(
    path: str | os.PathLike[str],
    *,
    prefill: int = 512,
    decode: int = 128,
    depth: int = 0,
    sequences: int = 1,
    threads: Iterable[int] | None = None,
    repetitions: int = 5,
    on_result: Callable[[Result], None] | None = None,
    on_compile: OnCompile | None = None,
) -> Report:
    """Measure the model at `path`: per number of threads (default: those available) a Result for prefill, then for decode.

    A length of 0 leaves that test out. depth: measure both again with so many tokens in the KV cache; runs from there and from an empty
    cache take turns. sequences: decode as many together, too, from an empty cache. on_result is called with each result as it comes,
    on_compile as by `ggpy.load`.
    """
    results: list[Result] = []
    kernels: tuple[KernelName, ...] = ()
    for count in threads or (available_threads(),):
        with ggpy.load(path, threads=count, context=1, on_compile=on_compile) as model:
            bench = _Bench(model, max(prefill, decode, 1), depth)
            kernels = bench.kernels
            for result in bench.results(prefill, decode, sequences, repetitions):
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

    def results(self, prefill: int, decode: int, sequences: int, repetitions: int) -> Iterable[Result]:
        threads = self._model.threads
        read = read_pass([tensor.data for tensor in self._read], threads)
        if prefill:
            tests = [self._prefill(depth, prefill) for depth in self._sequences]
            yield from _measure(tests, {"B": read, "op": product_pass(threads, prefill)}, threads, repetitions)
        if decode:
            tests = [self._decode(depth, decode) for depth in self._sequences]
            with ExitStack() as stack:
                if sequences > 1:
                    tests.append(self._decode_together(sequences, decode, stack))
                yield from _measure(tests, {"B": read, "op": product_pass(threads, sequences)}, threads, repetitions)

    def _prefill(self, depth: int, count: int) -> _Test:
        sequence = self._sequences[depth]

        def run() -> None:
            sequence.rewind(depth)
            sequence.prefill(self._tokens[: depth + count])

        passes, positions = -(-count // sequence.program.batch), depth + count
        n_bytes = passes * (self._weight_bytes(-(-count // passes)) + positions * self._position_bytes()) / count
        return _Test(_name("pp", count, depth), depth, 1, count, n_bytes, self._operations(self._multiplied), run)

    def _decode(self, depth: int, count: int) -> _Test:
        sequence = self._sequences[depth]

        def run() -> None:
            sequence.rewind(depth)
            for token in self._tokens[depth : depth + count]:
                sequence.decode(token)

        n_bytes = self._weight_bytes(1) + self._mean_positions(depth, count) * self._position_bytes()
        return _Test(_name("tg", count, depth), depth, 1, count, n_bytes, self._operations_with_logits(), run)

    def _decode_together(self, sequences: int, count: int, stack: ExitStack) -> _Test:
        """One token of each sequence in every pass."""
        generator = BatchGenerator(self._model.network, count, sequences, threads=self._model.threads)
        stack.callback(generator.close)

        def run() -> None:
            slots = [generator.add([token]) for token in (self._tokens * sequences)[:sequences]]
            generator.step()
            for i in range(1, count):
                for slot in slots:
                    generator.append(slot, self._tokens[(i + slot) % len(self._tokens)])
                generator.step()
            for slot in slots:
                generator.remove(slot)

        n_bytes = self._weight_bytes(sequences) / sequences + self._mean_positions(0, count) * self._position_bytes()
        return _Test(f"tg{count}x{sequences}", 0, sequences, count * sequences, n_bytes, self._operations_with_logits(), run)

    def _mean_positions(self, depth: int, count: int) -> float:
        """How many tokens a decoded one attends to: itself and those before it."""
        return depth + (count + 1) / 2

    def _operations_with_logits(self) -> float:
        return self._operations([tensor for tensor in self._read if len(tensor.shape) > 1])

    def _operations(self, matrices: Iterable[Tensor]) -> float:
        return 2 * sum(tensor.n_values * self._share(tensor, 1) for tensor in matrices)

    def _weight_bytes(self, tokens: int) -> float:
        """What a pass of so many tokens reads of the weights."""
        return sum(tensor.data.nbytes * self._share(tensor, tokens) for tensor in self._read)

    def _share(self, tensor: Tensor, tokens: int) -> float:
        """Of a stack of experts, the part that so many tokens go to, on average."""
        config = self._model.config
        return 1 - (1 - config.n_experts_used / config.n_experts) ** tokens if len(tensor.shape) > 2 else 1

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


def _measure(tests: Sequence[_Test], limits: Mapping[str, Pass], threads: int, repetitions: int) -> Iterable[Result]:
    """Run the tests in turn, a pass of each limit before each round and after the last."""
    for limit in limits.values():
        limit()
    for test in tests:
        test.run()  # warm: pages mapped, buffers touched
    runs: dict[str, list[float]] = {test.name: [] for test in tests}
    cpu, wall, own = _busy_seconds(), time.perf_counter(), time.process_time()
    rates = {unit: [limit()] for unit, limit in limits.items()}
    for _ in range(repetitions):
        for test in tests:
            start = time.perf_counter()
            test.run()
            runs[test.name].append(test.tokens / (time.perf_counter() - start))
        for unit, limit in limits.items():
            rates[unit].append(limit())
    wall, own, busy = time.perf_counter() - wall, time.process_time() - own, _busy_seconds()
    others = None if cpu is None or busy is None else max(0.0, (busy - cpu - own) / wall)
    for test in tests:
        unit = min(limits, key=lambda unit, test=test: statistics.median(rates[unit]) / test.needs(unit))
        first, own_runs = runs[tests[0].name], runs[test.name]
        cost = _cache_cost(tests[0], test, runs, rates["B"]) if test.depth and test.name.startswith("tg") else None
        gain = statistics.median(own / one for own, one in zip(own_runs, first, strict=True)) if test.sequences > 1 else None
        yield Result(test.name, threads, test.depth, test.sequences, tuple(own_runs), unit, test.needs(unit), tuple(rates[unit]), others,
                     cost, gain)  # fmt: skip


def _cache_cost(empty: _Test, deep: _Test, runs: dict[str, list[float]], rates: Sequence[float]) -> float:
    """Median over the rounds of the seconds a token takes more, over the seconds that reading what it reads more takes."""
    rounds = zip(runs[empty.name], runs[deep.name], rates, rates[1:], strict=False)
    more = deep.n_bytes - empty.n_bytes
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
        "lowering": target().name,
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
