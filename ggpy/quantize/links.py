"""Where a model's columns can be scaled without changing what it computes: which matrices read what a norm or another matrix gives.

Found by running the architecture's own forward pass on values that only remember where they come from and who reads them, so that every
architecture has its links without a table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ggpy.arch import Architecture, Config
from ggpy.quantize.calibration import EMBEDDING, OUTPUT, Matrix, run


@dataclass(frozen=True)
class Link:
    """consumers: matrices that are multiplied by the same input, all that read it. producer: the norm whose weight, or the matrix whose
    rows, can be divided by what the consumers' columns are multiplied with. is_norm: which of the two. heads, head_dim: where attention
    lies between, each of `heads` key-value heads' values of a producer's rows reach several query heads' columns, which must share their
    scales; 0 where columns and rows are one to one.
    """

    consumers: tuple[Matrix, ...]
    producer: Matrix
    is_norm: bool
    heads: int = 0
    head_dim: int = 0


def find_links(arch: Architecture, config: Config, tensors: Mapping[str, Matrix]) -> list[Link]:
    """All links of a model given by its tensors, in the order of the forward pass, without those to the head and to the embedding."""
    ops = _Tracing(config)
    run(arch, config, tensors, ops)  # pyright: ignore[reportArgumentType]
    return [link for value in ops.read if (link := _link(value)) is not None]


@dataclass(eq=False)
class _Value:
    """What an op gives. producer: where scaling rows, or a norm's weight, scales its columns; readers: ops that took it, and with what."""

    width: int
    producer: Matrix | None = None
    is_norm: bool = False
    through: tuple[_Value, ...] = ()  # values between the producer and this one, each with one reader where the scale passes unchanged
    heads: int = 0
    head_dim: int = 0
    readers: list[tuple[str, tuple[Matrix, ...]]] = field(default_factory=list)


def _link(value: _Value) -> Link | None:
    if value.producer is None or len(value.readers) != 1 or any(len(before.readers) != 1 for before in value.through):
        return None
    op, consumers = value.readers[0]
    names = {matrix.name for matrix in consumers}
    if op != "linear" or names & {EMBEDDING, OUTPUT} or value.producer.name in names:
        return None
    return Link(consumers, value.producer, value.is_norm, value.heads, value.head_dim)


class _Cache:
    """Remembers the values of the batch."""

    def __init__(self, ops: _Tracing):
        self._ops, self.values = ops, _Value(0)

    def append(self, keys: _Value, values: _Value) -> _Cache:
        self._ops.reads("append", keys, values)
        self.values = values
        return self


class _Tracing:
    """The op vocabulary on `_Value`s. Ops it does not name read their arguments, and no scale passes through them."""

    def __init__(self, config: Config):
        shape = config.cache_shape
        self._heads, self._head_dim = shape.n_kv_heads, shape.head_dim
        self.caches = [_Cache(self) for _ in range(shape.n_layers)]
        self.read: list[_Value] = []  # each once, in the order of their first readers

    def reads(self, op: str, *arguments: Any, matrices: tuple[Matrix, ...] = ()) -> None:
        for value in arguments:
            if isinstance(value, _Value):
                if not value.readers:
                    self.read.append(value)
                value.readers.append((op, matrices))

    def embed(self, weight: Matrix) -> _Value:
        return _Value(weight.cols)

    def rms_norm(self, x: _Value, weight: Matrix, eps: float) -> _Value:
        self.reads("rms_norm", x)
        return _Value(x.width, weight, is_norm=True) if weight.cols == x.width else _Value(x.width)

    def linear(self, x: _Value, *weights: Matrix) -> Any:
        self.reads("linear", x, matrices=weights)
        results = tuple(_Value(weight.rows, weight) for weight in weights)
        return results[0] if len(results) == 1 else results

    def silu_mul(self, gate: _Value, up: _Value) -> _Value:
        """A scale of `up` passes: it is a factor of the product."""
        self.reads("mul", gate, up)
        return _Value(up.width, up.producer, through=(up,))

    gelu_mul = silu_mul

    def attention(self, q: _Value, cache: _Cache, *settings: Any) -> _Value:
        """A scale of the values passes, column by column: what attention gives is a mean of them."""
        self.reads("attention", q)
        return _Value(q.width, cache.values.producer, through=(cache.values,), heads=self._heads, head_dim=self._head_dim)

    def experts(self, x: _Value, *others: Any) -> _Value:
        self.reads("experts", x, *others)
        return _Value(x.width)

    def __getattr__(self, op: str) -> Any:
        def other(*arguments: Any) -> _Value:
            self.reads(op, *arguments)
            return _Value(next(value.width for value in arguments if isinstance(value, _Value)))

        return other
