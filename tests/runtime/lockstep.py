"""Runs a model's tape unfused and its reference ops side by side: every op on the inputs that the tape itself had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggpy.arch import ARCHS
from ggpy.gguf import open_gguf
from ggpy.kernels.kinds import BF16_FROM, activation_kind
from ggpy.runtime.kv_cache import KVCache
from ggpy.runtime.parallel import ThreadPool
from ggpy.runtime.program import Program
from ggpy.runtime.recorder import Op
from ggpy.runtime.reference import ReferenceCache, ReferenceOps, dense
from ggpy.runtime.weights import Weight, load_weights
from ggpy.simd.target import target


@dataclass
class Loaded:
    """An open model: its config, weights, and programs made on demand."""

    config: object
    forward: object
    shape: object
    architecture: str = "llama"

    def program(self, *, fuse: bool = True, threads: int = 1, context: int = 256, batch: int = 64, outputs: int = 16) -> Program:
        cache = KVCache(self.shape, context)
        return Program(self.forward, cache, batch=batch, outputs=outputs, pool=ThreadPool(threads), fuse=fuse)

    def reference(self, tokens: Sequence[int], n_outputs: int) -> np.ndarray:
        """Logits of the reference ops alone, from an empty cache."""
        ops = ReferenceOps(self.shape)
        ops.tokens, ops.n_outputs = np.asarray(tokens, np.int64), n_outputs
        return self.forward(ops)


@contextmanager
def loaded(path: Path) -> Iterator[Loaded]:
    with open_gguf(path) as file:
        arch = ARCHS[file.metadata.string("general.architecture")]
        config = arch.config(file)
        weights = load_weights(file, arch.shapes(config))
        yield Loaded(config, lambda op: arch.forward(op, weights, config), config.cache_shape, arch.name)


def bound(op: Op, inputs: list[np.ndarray], want: np.ndarray, weight_number: int = 0) -> np.ndarray:
    """How far the tape may be from the reference on the same inputs, element by element.

    A product whose format takes int8 activations: half an activation's scale times each weight's magnitude, the bound of rounding; in
    bfloat16, of eight bits: 2^-8 of each activation and of each weight.
    All else is float32 arithmetic in another order: 2^-16 of the magnitudes involved. Keys and values are kept as float16: 2^-11.
    """
    if op.name == "linear":
        return product_bound(op.params["weights"][weight_number], inputs[0])
    if op.name == "experts":
        return experts_bound(op, *inputs) + np.abs(want) * 2**-16
    if op.name == "attention":
        return np.full_like(want, np.abs(want).max() * 2**-9)
    return np.abs(want) * 2**-16 + np.abs(want).max() * 2**-18


def product_bound(weight: Weight, x: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(dense(weight)).reshape(weight.rows, weight.cols)
    kind = activation_kind(weight.format.name)
    floor = np.abs(x) @ magnitudes.T * 2**-16
    if kind == "float32":
        return floor
    if target().amx and len(x) >= BF16_FROM:
        return floor + np.abs(x) @ magnitudes.T * (2**-7 + 2**-16)
    if kind == "bfloat16":
        return floor
    block = int(kind.removeprefix("int8_"))
    step = np.repeat(np.abs(x).reshape(len(x), -1, block).max(2) / 127, block, axis=1)
    return (step * 0.5001) @ magnitudes.T + floor + 1e-6


def experts_bound(op: Op, x: np.ndarray, routes: np.ndarray) -> np.ndarray:
    """Of each expert's products: the first two's, passed on by silu(gate) * up, whose slope in gate is at most 1.1 |up|; the third's."""
    ops, (numbers, shares) = ReferenceOps.__new__(ReferenceOps), np.split(routes, 2, axis=1)
    n_experts = op.params["weights"][2].rows // x.shape[1]
    stacks = [w.split(*[w.rows // n_experts] * n_experts) for w in op.params["weights"]]
    total = np.zeros_like(x)
    for number in np.unique(numbers).astype(int):
        tokens, ranks = np.nonzero(numbers == number)
        h, (gate, up, down) = x[tokens], (stack[number] for stack in stacks)
        of_gate, of_up = product_bound(gate, h), product_bound(up, h)
        gates, ups = ops.linear(h, gate, up)
        hidden = ops.silu_mul(gates, ups)
        passed_on = 1.1 * of_gate * (np.abs(ups) + of_up) + np.abs(ops.silu_mul(gates, 1)) * of_up + np.abs(hidden) * 2**-16
        of_hidden = product_bound(down, np.abs(hidden) + passed_on) + passed_on @ np.abs(dense(down)).T
        total[tokens] += np.abs(shares[tokens, ranks, None]) * of_hidden
    return total


def compare(model: Loaded, tokens: Sequence[int], *, threads: int = 1, split: int | None = None) -> Iterator[tuple[Op, float]]:
    """(op, largest difference as a share of its bound) for every recorded op; `split`: the first tokens go in a batch of their own."""
    program = model.program(fuse=False, threads=threads, batch=max(16, len(tokens)), outputs=16)
    first = split or 0
    if first:
        program.run(tokens[:first], 0, 1)
    rest = tokens[first:]
    program.run(rest, first, 1)
    reference = ReferenceOps(model.shape)
    reference.tokens, reference.position, reference.n_outputs = np.asarray(rest, np.int64), first, 1
    for op in program.ops:
        inputs = [program.values(v, 1 if v.of_outputs else len(rest)).copy() for v in op.inputs]
        if op.name == "append":
            keys, values = program.cache.read(op.params["layer"], len(tokens))
            for got, want in ((keys, inputs[0]), (values, inputs[1])):
                want = want.reshape(got[first:].shape)
                yield op, float((np.abs(got[first:] - want) / (np.abs(want) * 2**-11 + 2**-24)).max())
            continue
        params = {k: v for k, v in op.params.items() if k not in ("weights", "layer")}
        extra = op.params.get("weights", ())
        if op.name == "attention":
            extra = (ReferenceCache(*program.cache.read(op.params["layer"], len(tokens))),)
        results = getattr(reference, op.name)(*inputs, *extra, **params)
        results = results if isinstance(results, tuple) else (results,)
        for i, (value, want) in enumerate(zip(op.outputs, results, strict=True)):
            got = program.values(value, len(want))
            limit = bound(op, inputs, want, i)
            difference = np.abs(got - want)
            yield op, float(np.where(difference == 0, 0, difference / np.maximum(limit, 1e-30)).max())
