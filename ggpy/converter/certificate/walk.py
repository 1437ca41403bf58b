"""A GGUF file's own forward pass over a probe, layer by layer, its weights read and decoded a piece at a time.

The graph is the architecture's, the ops are the runtime's reference ops in float32. Between two layers the caller may look at the hidden
states, and change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggpy.arch import Architecture, Config
from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.certificate.probe import Probe
from ggpy.converter.certificate.products import Products, Rows
from ggpy.converter.files import RangeFile
from ggpy.gguf import GGUFFile, Tensor
from ggpy.runtime.encode import FLOATS
from ggpy.runtime.reference import ReferenceCache, ReferenceOps
from ggpy.runtime.weights import lazy_weights

ROTATED = " rotated"
EMBEDDING, HEAD = "token_embd", "output"


@dataclass
class State:
    """The hidden states after a stage of a model. name: "token_embd", "blk.3" or "output", for which they are the logits.

    hidden: float32 (n, d_model). stages: what was computed on the way, by the part of the GGUF tensor's name that says what it is
    ("attn_q"), in the order GGUF gives it; `ROTATED` behind the name: after the rotary embedding.
    """

    name: str
    hidden: NDArray[np.float32]
    stages: dict[str, NDArray[np.float32]] = field(default_factory=dict)


OnState = Callable[[State], None]


@dataclass(frozen=True, eq=False)
class RowsWeight:
    """A tensor as the reference ops want it, read when it is needed: a matrix by pieces, anything smaller as float32."""

    matrix: Rows
    bias: NDArray[np.float32] | None = None

    format = BLOCKS["F32"]

    @property
    def name(self) -> str:
        return self.matrix.name

    @property
    def rows(self) -> int:
        return self.matrix.n_rows

    @property
    def cols(self) -> int:
        return self.matrix.n_columns

    def split(self, *rows: int) -> tuple[RowsWeight, ...]:
        """As `Weight.split`."""
        ends = accumulate(rows)
        return tuple(RowsWeight(self.matrix.part(end - n, end)) for n, end in zip(rows, ends, strict=True))

    @property
    def data(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.matrix.values()).view(np.uint8)


class ProbeOps(ReferenceOps):
    """The reference ops over segments that do not see each other, at positions of their own."""

    def __init__(self, config: Config, probe: Probe, products: Products):
        super().__init__(config.cache_shape)
        self.tokens, self._probe, self._products = probe.ids, probe, products

    def embed(self, weight: RowsWeight) -> np.ndarray:
        return weight.matrix.at(self.tokens)

    def linear(self, x: np.ndarray, *weights: RowsWeight) -> Any:
        results = tuple(self._products(x, w.matrix) if w.bias is None else self._products(x, w.matrix) + w.bias for w in weights)
        return results[0] if len(results) == 1 else results

    def attention(self, q: np.ndarray, cache: ReferenceCache, scale: float, window: int = 0, cap: float = 0.0) -> np.ndarray:
        parts = (ReferenceCache(cache.keys[part], cache.values[part]) for part in self._probe.segments)
        attend = super().attention
        outputs = [attend(q[s], c, scale, window, cap) for s, c in zip(self._probe.segments, parts, strict=True)]
        return np.concatenate(outputs)

    def positions(self, n: int) -> np.ndarray:
        return self._probe.positions

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return x[self._probe.kept]


class _Traced:
    """Ops that remember what they gave since the last look, by the weights it came from."""

    def __init__(self, ops: ProbeOps):
        self._ops = ops
        self.before_outputs: Callable[[], None] = lambda: None
        self.latest: Any = None
        self._named: dict[int, tuple[str, np.ndarray]] = {}  # the arrays are kept, so that no other gets their number

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ops, name)
        return partial(self._call, name, value) if callable(value) else value

    def take_stages(self) -> dict[str, np.ndarray]:
        named, self._named = self._named, {}
        return dict(named.values())

    def _call(self, op: str, function: Callable[..., Any], *args: Any) -> Any:
        if op == "outputs":
            self.before_outputs()
        result = function(*args)
        results = result if isinstance(result, tuple) else (result,)
        names = [_stage_name(arg.name) for arg in args if isinstance(arg, RowsWeight)]
        if op == "rope" and id(args[0]) in self._named:
            names = [self._named[id(args[0])][0] + ROTATED]
        if len(names) == len(results):
            self._named |= {id(array): (name, array) for name, array in zip(names, results, strict=True)}
        self.latest = results[-1]
        return result


def _stage_name(tensor: str) -> str:
    parts = tensor.split(".")
    return parts[2] if parts[0] == "blk" else parts[0]


class _Layers(Sequence[SimpleNamespace]):
    """The layers' weights, one at a time: who asks for a layer's has done with the one before."""

    def __init__(self, layers: list[SimpleNamespace], between: Callable[[int], None]):
        self._layers, self._between, self._done = layers, between, 0

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: Any) -> Any:
        if index == self._done:
            self._between(index)
            self._done += 1
        return self._layers[index]

    def __iter__(self) -> Iterator[SimpleNamespace]:
        for index in range(len(self._layers)):
            yield self[index]

    def finish(self) -> None:
        """The last layer is done with."""
        if self._done == len(self._layers):
            self._between(self._done)
            self._done += 1


def walk(
    arch: Architecture,
    config: Config,
    tensors: Mapping[str, Rows],
    probe: Probe,
    products: Products,
    on_state: OnState,
) -> NDArray[np.float32]:
    """Logits float32 (n, n_vocab) after the probe's tokens `kept`.

    tensors: by their GGUF names. on_state(state) is called after the embedding and after every layer; what it writes into `state.hidden`
    goes on from there. Raises ModelError for tensors that are missing or of another size than the architecture expects.
    """
    traced = _Traced(ProbeOps(config, probe, products))

    def between(index: int) -> None:
        name = f"blk.{index - 1}" if index else EMBEDDING
        on_state(State(name, traced.latest, traced.take_stages()))

    weights = weight_tree(tensors, arch.shapes(config))
    layers = _Layers(weights.layers, between)
    weights.layers, traced.before_outputs = layers, layers.finish
    return arch.forward(traced, weights, config)


def rows_of(gguf: GGUFFile, file: RangeFile) -> dict[str, Rows]:
    """The tensors of an open file, read from `file` and decoded as rows are asked for."""
    return {tensor.name: _rows(file, tensor) for tensor in gguf.tensors.values() if tensor.n_values}


def _rows(file: RangeFile, tensor: Tensor) -> Rows:
    cols, row_bytes = tensor.shape[-1], tensor.format.row_bytes(tensor.shape[-1])

    def read(start: int, stop: int) -> np.ndarray:
        blocks = file.read(tensor.offset + start * row_bytes, (stop - start) * row_bytes).reshape(stop - start, row_bytes)
        return blocks.view(FLOATS[tensor.format.name]) if tensor.format.name in FLOATS else dequantize(blocks, tensor.format)

    return Rows(tensor.name, tensor.n_values // cols, cols, read)


def weight_tree(tensors: Mapping[str, Rows], shapes: Mapping[str, tuple[int, ...]]) -> SimpleNamespace:
    """The tree that `runtime.weights.load_weights` gives, of weights that are read when needed."""

    def weight(rows: Rows, bias: Rows | None) -> RowsWeight:
        return RowsWeight(rows, None if bias is None else bias.values().reshape(-1))

    return lazy_weights(tensors, shapes, lambda rows: (rows.n_rows, rows.n_columns), weight)
