"""A model's forward pass over a whole calibration text, layer by layer: every product with weights is shown its inputs first.

The graph is the architecture's, the ops are the runtime's reference ops in float32, done a chunk at a time on several threads and with less
memory. Whoever looks at the inputs may say by which other weights the text goes on: those that were just quantized, so that the layers
behind see the inputs they will have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggpy.arch import Architecture, Config
from ggpy.blocks import BLOCKS
from ggpy.errors import GGPyError, ModelError, printable
from ggpy.quantize.products import Array, Products
from ggpy.quantize.texts import Chunks
from ggpy.runtime.encode import widened
from ggpy.runtime.reference import ReferenceCache, ReferenceOps
from ggpy.runtime.weights import lazy_weights

_QUERIES_AT_ONCE = 128  # whose scores are in a core's cache, and which see no keys behind the last of them
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True, eq=False)
class Matrix:
    """A tensor of the model, or `rows` of its `tensor_rows` rows from `first_row` on. read(start, stop): rows of the tensor, of any float
    type."""

    name: str
    rows: int
    cols: int
    tensor_rows: int
    read: Callable[[int, int], np.ndarray]
    first_row: int = 0
    bias: Array | None = None

    format = BLOCKS["F32"]

    def values(self) -> Array:
        """float32 (rows, cols)."""
        return widened(self.read(self.first_row, self.first_row + self.rows))

    def split(self, *rows: int) -> tuple[Matrix, ...]:
        """As `Weight.split`."""
        return tuple(replace(self, rows=n, first_row=self.first_row + end - n) for n, end in zip(rows, accumulate(rows), strict=True))

    @property
    def data(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.values()).view(np.uint8)


@dataclass(frozen=True)
class Inputs:
    """What matrices are multiplied by: x float32 (tokens, n), as the weights have it that the text went through so far. units: ranges of
    tokens that are summed up at once. exact: x as the model's own weights have it; None where that was not asked for, or where tokens go
    different ways."""

    x: Array
    units: tuple[slice, ...]
    exact: Array | None = None


Look = Callable[[Inputs, Sequence[Matrix]], Sequence[Array | None]]
"""(inputs, the matrices that are multiplied by them) -> for each of them the weights to go on with, float32 (rows, cols), or None for its
own. Of the head, which is last, what it returns does not matter."""


class CalibrationOps(ReferenceOps):
    """The reference ops over chunks that do not see each other. twice: all tokens go through the model's own weights once more, behind the
    others. embedded(rows): what the text begins with in place of rows of the embedding."""

    def __init__(
        self,
        config: Config,
        chunks: Chunks,
        products: Products,
        look: Look,
        *,
        twice: bool = False,
        embedded: Callable[[Array], Array] | None = None,
    ):
        super().__init__(config.cache_shape)
        self._chunks, self._products, self._look, self._twice = chunks, products, look, twice
        self._embedded = embedded or (lambda rows: rows)
        self.tokens = chunks.ids.reshape(-1)
        self._units = tuple(slice(u.start * chunks.length, u.stop * chunks.length) for u in chunks.units)

    def embed(self, weight: Matrix) -> Array:
        numbers, places = np.unique(self.tokens, return_inverse=True)
        if numbers[-1] >= weight.rows or numbers[0] < 0:
            raise ModelError(f"token {numbers[-1]} of the calibration text is not among the model's {weight.rows}")
        rows = np.concatenate([widened(weight.read(int(number), int(number) + 1)) for number in numbers])
        x = self._embedded(rows)[places]
        return np.concatenate([x, rows[places]]) if self._twice else x

    def linear(self, x: Array, *weights: Matrix) -> Any:
        used = self._look(self._inputs(x), weights)
        if weights[0].name in (EMBEDDING, OUTPUT):  # nobody asks for logits
            return np.zeros((0, weights[0].rows), np.float32)
        results = self._products_of(x, weights, used, len(self.tokens))
        return results[0] if len(results) == 1 else tuple(results)

    def experts(self, x: Array, routes: Array, gate: Matrix, up: Matrix, down: Matrix) -> Array:
        numbers, likely = np.split(routes, 2, axis=-1)
        n_experts = down.rows // x.shape[1]
        gates, ups, downs = (w.split(*[w.rows // n_experts] * n_experts) for w in (gate, up, down))
        result = np.zeros_like(x)
        n_counted = len(self.tokens)
        for number in range(n_experts):
            tokens, ranks = np.nonzero(numbers == number)
            counted = tokens[: int(np.searchsorted(tokens, n_counted))]
            units = tuple(slice(*np.searchsorted(counted, (unit.start, unit.stop)).tolist()) for unit in self._units)
            rows = x[tokens]
            used = self._look(Inputs(rows[: len(counted)], units), (gates[number], ups[number]))
            hidden = ReferenceOps.silu_mul(self, *self._products_of(rows, (gates[number], ups[number]), used, len(counted)))
            used = self._look(Inputs(hidden[: len(counted)], units), (downs[number],))
            result[tokens] += likely[tokens, ranks, None] * self._products_of(hidden, (downs[number],), used, len(counted))[0]
        return result

    def attention(self, q: Array, cache: ReferenceCache, scale: float, window: int = 0, cap: float = 0.0) -> Array:
        length, (n_tokens, n_heads, dim) = self._chunks.length, cache.keys.shape
        group, result = q.shape[1] // (n_heads * dim), np.empty_like(q)
        before = np.arange(length)[:, None] - np.arange(length)
        hidden = np.where((before >= 0) & (before < (window or length)), np.float32(0), np.float32(-np.inf))

        def attend(start: int, head: int) -> None:
            rows = slice(start, start + length)
            keys = np.ascontiguousarray(cache.keys[rows, head])
            for first in range(0, length, _QUERIES_AT_ONCE):
                last = min(first + _QUERIES_AT_ONCE, length)
                values = np.ascontiguousarray(cache.values[start : start + last, head].T)
                for i in range(head * group, (head + 1) * group):
                    at = slice(start + first, start + last), slice(i * dim, (i + 1) * dim)
                    scores = self._products.small(q[at] * np.float32(scale), keys[:last])
                    if cap:
                        scores = self.soft_cap(scores, cap)
                    scores += hidden[first:last, :last]
                    scores -= scores.max(-1, keepdims=True)
                    np.exp(scores, out=scores)
                    sums = scores.sum(-1, keepdims=True)
                    result[at] = self._products.small(scores, values) / sums

        self._products.each(partial(attend, start, head) for start in range(0, n_tokens, length) for head in range(n_heads))
        cache.keys = cache.values = np.zeros((0, n_heads, dim), np.float32)
        return result

    def rms_norm(self, x: Array, weight: Matrix, eps: float) -> Array:
        values = weight.values()
        known = replace(weight, read=lambda start, stop: values)
        return self._by_chunks(lambda rows: ReferenceOps.rms_norm(self, rows, known, eps), x)  # pyright: ignore[reportArgumentType]

    def rope(self, x: Array, rope: Any) -> Array:
        return self._by_chunks(lambda rows: ReferenceOps.rope(self, rows, rope), x)

    def silu_mul(self, gate: Array, up: Array) -> Array:
        return self._by_chunks(lambda *rows: ReferenceOps.silu_mul(self, *rows), gate, up, into=gate)

    def gelu_mul(self, gate: Array, up: Array) -> Array:
        return self._by_chunks(lambda *rows: ReferenceOps.gelu_mul(self, *rows), gate, up, into=gate)

    def positions(self, n: int) -> np.ndarray:
        return np.arange(n)  # of a chunk

    def outputs(self, x: Array) -> Array:
        return x

    def _inputs(self, x: Array) -> Inputs:
        n_counted = len(self.tokens)
        return Inputs(x[:n_counted], self._units, x[n_counted:] if self._twice else None)

    def _products_of(self, x: Array, weights: Sequence[Matrix], used: Sequence[Array | None], n_counted: int) -> list[Array]:
        """x, of which the first n_counted tokens go through what is `used` in place of the weights."""
        results = self._products.linear(x[:n_counted], *(w.values() if u is None else u for w, u in zip(weights, used, strict=True)))
        if n_counted < len(x):
            exact = self._products.linear(x[n_counted:], *(w.values() for w in weights))
            results = [np.concatenate(parts) for parts in zip(results, exact, strict=True)]
        for weight, result in zip(weights, results, strict=True):
            if weight.bias is not None:
                result += weight.bias
        return results

    def _by_chunks(self, function: Callable[..., np.ndarray], *arrays: Array, into: Array | None = None) -> Array:
        """`function` of a chunk's rows at a time; `into` may be one of the arrays, which then is no more what it was."""
        out, length = np.empty_like(arrays[0]) if into is None else into, self._chunks.length

        def one(start: int) -> None:
            out[start : start + length] = function(*(array[start : start + length] for array in arrays))

        self._products.each(partial(one, start) for start in range(0, len(out), length))
        return out


def run(arch: Architecture, config: Config, tensors: Mapping[str, Matrix], ops: CalibrationOps) -> None:
    """Take the text of `ops` through a model given by its tensors, by their GGUF names. Raises ModelError for tensors that are missing or
    of another size than the architecture expects, and GGPyError, which names the matrix, where inputs are not finite or too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        arch.forward(ops, weight_tree(tensors, arch.shapes(config)), config)


def weight_tree(tensors: Mapping[str, Matrix], shapes: Mapping[str, tuple[int, ...]]) -> SimpleNamespace:
    """The tree that `runtime.weights.load_weights` gives, of weights that are read when needed."""

    def weight(matrix: Matrix, bias: Matrix | None) -> Matrix:
        return replace(matrix, bias=None if bias is None else bias.values().reshape(-1))

    return lazy_weights(tensors, shapes, lambda matrix: (matrix.rows, matrix.cols), weight)


def named(matrix: Matrix, error: GGPyError) -> GGPyError:
    """The error of counting a matrix's inputs, with its name."""
    return type(error)(f"tensor {printable(matrix.name)}: {error}")
