"""How fast a file will decode here, before it is written: seconds per weight of every block format, measured in a model of the same shapes.

The model's own forward pass runs on random blocks, all matrices in a reference format; then on the same with those that can take it in
another. What that adds to a token's time, divided by the weights it was done to, is what a weight in that format takes more. So attention,
norms and everything else a token takes are in the reference's time, and a mix of formats takes as much more or less as its weights do.
Passes of the two take turns, so that both meet the same machine. One thread's time is what it had a processor for, several threads' is
that on the wall. Measured once per machine and model, and kept in the user's cache directory.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ggpy
from ggpy.blocks import BLOCKS
from ggpy.cache import cache_directory, read_entry, write_entry
from ggpy.converter.progress import Meter, OnProgress
from ggpy.converter.source import SourceTensor
from ggpy.generate import Generator, Network
from ggpy.picker.model import Outline, matrices
from ggpy.runtime.compiled import OnCompile
from ggpy.runtime.encode import encode_rows
from ggpy.runtime.host import available_memory
from ggpy.simd.target import target

REFERENCE = "Q8_0"
DEPTH = 48  # tokens in the cache before those measured: about as many as in the middle of tg128
ROUNDS = 5
_ROUND_SECONDS = 0.15
_SLAB_VALUES = 1 << 20
_DEVIATION = 0.02  # of random weights: what training starts from
_OTHERS = "Q8_0", "Q4_0", "F16"


@dataclass(frozen=True)
class Speeds:
    """On `threads` threads: token_seconds with every matrix in `reference`; per_weight: by format, the seconds that a weight read takes
    more than in `reference`."""

    threads: int
    token_seconds: float
    per_weight: Mapping[str, float]
    reference: str = REFERENCE

    def seconds(self, formats: Mapping[str, str], read: Mapping[str, float]) -> float:
        """Per decoded token. formats: by tensor; read: how many of its weights a token reads."""
        return self.token_seconds + sum(read[name] * self.per_weight[format] for name, format in formats.items() if read[name])


def weights_read(outline: Outline) -> dict[str, float]:
    """By matrix, how many of its weights a decoded token reads: of an embedding that is only looked up none, of experts those used."""
    config, tied = outline.config, "output.weight" not in outline.file.tensors
    share = config.n_experts_used / config.n_experts if config.n_experts else 1.0
    found = {}
    for tensor in matrices(outline.source):
        looked_up = tensor.name == "token_embd.weight" and not tied
        found[tensor.name] = 0.0 if looked_up else tensor.n_values * (share if len(tensor.shape) > 2 else 1.0)
    return found


def measure_speeds(
    outline: Outline,
    formats: Sequence[str],
    threads: int,
    on_progress: OnProgress | None = None,
    on_compile: OnCompile | None = None,
) -> Speeds:
    """Measure what is not known of this machine and a model of these shapes yet."""
    reference = _reference(outline)
    key = _key(outline, threads, reference)
    path = cache_directory() / "picker" / f"speed-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    entry = read_entry(path, key)
    known: dict[str, Any] = json.loads(entry[1]) if entry else {}
    missing = [format for format in formats if format not in known.get("per_weight", {}) and format != reference]
    if missing or not known:
        comparison = _Comparison(outline, reference, threads, on_compile)
        meter = Meter("time", len(missing) or 1, on_progress)
        try:
            for format in missing:
                known.setdefault("per_weight", {})[format] = comparison.extra(format)
                meter(format, 1)
            known["token_seconds"] = comparison.token_seconds()
        finally:
            comparison.close()
        write_entry(path, key, json.dumps(known).encode())
    per_weight = {reference: 0.0, **known.get("per_weight", {})}
    return Speeds(threads, known["token_seconds"], per_weight, reference)


def _reference(outline: Outline) -> str:
    """The first of `_OTHERS` that every matrix can take."""
    columns = {tensor.columns for tensor in matrices(outline.source)}
    return next(name for name in _OTHERS if all(n % BLOCKS[name].block_values == 0 for n in columns))


def _key(outline: Outline, threads: int, reference: str) -> str:
    shapes = sorted((t.name, t.shape) for t in matrices(outline.source))
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
    machine = target()
    return f"speed 2, ggpy {ggpy.__version__}, {machine.cpu} ({machine.name}), {threads} threads, {reference}, {digest}"


class _Comparison:
    """The reference model in memory, and others beside it, one at a time."""

    def __init__(self, outline: Outline, reference: str, threads: int, on_compile: OnCompile | None):
        self._outline, self._reference, self._threads, self._on_compile = outline, reference, threads, on_compile
        self._read = weights_read(outline)
        self._n_layers = _layers_that_fit(outline)
        self._base = _Decoder(outline, {}, reference, self._n_layers, threads, on_compile)
        self._base_seconds: list[float] = []

    def extra(self, format: str) -> float:
        """Seconds that a weight read in this format takes more than in the reference."""
        block = BLOCKS[format].block_values
        changed = {t.name: format for t in self._measured if t.columns % block == 0}
        n_read = sum(self._read[name] for name in changed)
        if not n_read:
            return 0.0
        other = _Decoder(self._outline, changed, self._reference, self._n_layers, self._threads, self._on_compile)
        try:
            ratios = []
            for _ in range(ROUNDS):
                base, own = self._base.seconds(), other.seconds()
                self._base_seconds.append(base)
                ratios.append(own / base)
        finally:
            other.close()
        return (statistics.median(ratios) - 1) * statistics.median(self._base_seconds) / n_read

    def token_seconds(self) -> float:
        """Of a token in the reference format; where not all layers fit into memory, the others take what those measured take."""
        while len(self._base_seconds) < ROUNDS:
            self._base_seconds.append(self._base.seconds())
        whole = statistics.median(self._base_seconds)
        n_layers = self._outline.config.n_layers
        if self._n_layers == n_layers:
            return whole
        fewer = _Decoder(self._outline, {}, self._reference, self._n_layers // 2, self._threads, self._on_compile)
        try:
            part = statistics.median(fewer.seconds() for _ in range(ROUNDS))
        finally:
            fewer.close()
        return whole + (n_layers - self._n_layers) * (whole - part) / (self._n_layers - self._n_layers // 2)

    @property
    def _measured(self) -> list[SourceTensor]:
        return [t for t in matrices(self._outline.source) if _layer(t.name) < self._n_layers]

    def close(self) -> None:
        self._base.close()


class _Decoder:
    """A model of random blocks, its matrices in `formats`, the others in `reference`, that decodes token after token."""

    def __init__(self, outline: Outline, formats: Mapping[str, str], reference: str, n_layers: int, threads: int, on_compile):
        config = replace(outline.config.for_context(256), n_layers=n_layers)
        tensors = [t for t in matrices(outline.source) if _layer(t.name) < n_layers]
        chosen = {t.name: formats.get(t.name, reference) for t in tensors}
        self._memory, data = _random_blocks(tensors, chosen)
        weights = outline.weights(data, config)
        weights.layers = weights.layers[:n_layers]
        network = Network(
            name="random blocks",
            forward=lambda op: outline.architecture.forward(op, weights, config),
            shape=config.cache_shape,
            n_vocab=config.n_vocab,
            check_unchanged=lambda: None,
            describe_fault=lambda: "weights are random",
        )
        self._ids = random_ids(config.n_vocab)
        self._generator = Generator(network, len(self._ids), threads=threads, on_compile=on_compile)
        self._count = 4
        self._count = int(np.clip(_ROUND_SECONDS / self.seconds(), 4, 64))

    def seconds(self) -> float:
        """Per token, of a round of them."""
        return decode_seconds(self._generator, self._ids, self._count)

    def close(self) -> None:
        self._generator.close()


def random_ids(n_vocab: int) -> list[int]:
    """What is decoded, and before it what is in the cache by then."""
    return np.random.default_rng(0).integers(0, n_vocab, 256).tolist()


def decode_seconds(generator: Generator, ids: Sequence[int], count: int) -> float:
    """Per token, of `count` of them behind the first `DEPTH`."""
    clock = time.thread_time if generator.program.pool.threads == 1 else time.perf_counter
    if len(generator.ids) < DEPTH:
        generator.prefill(ids[:DEPTH])
    generator.rewind(DEPTH)
    start = clock()
    for token in ids[DEPTH : DEPTH + count]:
        generator.decode(token)
    return (clock() - start) / count


def _layer(name: str) -> int:
    """-1 for what is in no layer."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdecimal() else -1


def _layers_that_fit(outline: Outline) -> int:
    """How many layers can be in memory twice, once with 16 bits a weight, in half of what is free; at least two, or all."""
    n_layers, free = outline.config.n_layers, available_memory()
    if free is None:
        return n_layers
    values = [(t.n_values, _layer(t.name)) for t in matrices(outline.source)]
    fixed, layer = (sum(n for n, i in values if i == at) for at in (-1, 0))
    return int(np.clip((free / 2 / 3.1 - fixed) // max(1, layer), min(2, n_layers), n_layers))


def _random_blocks(
    tensors: Sequence[SourceTensor], formats: Mapping[str, str]
) -> tuple[mmap.mmap, dict[str, tuple[str, NDArray[np.uint8]]]]:
    """(format, uint8 (rows, row bytes)) by tensor, in large pages, as recent systems keep mapped files, and the memory they lie in."""
    sizes = {t.name: t.rows * BLOCKS[formats[t.name]].row_bytes(t.columns) for t in tensors}
    memory = mmap.mmap(-1, sum(-(-size // 64) * 64 for size in sizes.values()))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole, at = np.frombuffer(memory, np.uint8), 0
    slabs: dict[tuple[str, int], NDArray[np.uint8]] = {}
    data = {}
    for tensor in tensors:
        format = formats[tensor.name]
        slab = slabs.get((format, tensor.columns))
        if slab is None:
            rows = max(1, _SLAB_VALUES // tensor.columns)
            values = np.random.default_rng(0).standard_normal((rows, tensor.columns), np.float32) * np.float32(_DEVIATION)
            slab = slabs[format, tensor.columns] = encode_rows(values, BLOCKS[format], 1)
        blocks = whole[at : at + sizes[tensor.name]].reshape(tensor.rows, slab.shape[1])
        for start in range(0, tensor.rows, len(slab)):
            blocks[start : start + len(slab)] = slab[: tensor.rows - start]
        data[tensor.name] = format, blocks
        at += -(-sizes[tensor.name] // 64) * 64
    return memory, data
