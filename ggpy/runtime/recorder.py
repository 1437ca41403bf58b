"""The op vocabulary, recorded: an architecture's forward pass runs once and leaves a list of ops on named values.

The same vocabulary is eager NumPy in `reference.py`; `lowering.py` turns the list into kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ggpy.runtime.kv_cache import CacheShape
from ggpy.runtime.rotary import Rope
from ggpy.runtime.weights import Weight


@dataclass(frozen=True, eq=False)
class Value:
    """float32 (n, width), n being the tokens of the batch, or after `outputs` the rows that become logits."""

    number: int
    width: int
    of_outputs: bool = False


@dataclass(frozen=True, eq=False)
class Op:
    """One recorded call: `name` is the method of the vocabulary, `params` what it took besides values."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedCache:
    """One layer's key-value cache while recording."""

    recorder: Recorder
    layer: int

    def append(self, keys: Value, values: Value) -> RecordedCache:
        """Store this batch's keys and values, (n_tokens, n_kv_heads * head_dim) each, behind those of earlier positions."""
        self.recorder.emit("append", (keys, values), (), layer=self.layer)
        return self


class Recorder:
    """Records ops. Values are (n_tokens, width); a weight is `Weight`, (rows, cols) = (width of the result, width of the input)."""

    def __init__(self, shape: CacheShape):
        self.shape = shape
        self.ops: list[Op] = []
        self.caches = [RecordedCache(self, layer) for layer in range(shape.n_layers)]
        self._values = 0

    def emit(self, name: str, inputs: tuple[Value, ...], widths: tuple[int, ...], **params: Any) -> tuple[Value, ...]:
        of_outputs = name == "outputs" or any(value.of_outputs for value in inputs)
        outputs = tuple(Value(self._values + i, width, of_outputs) for i, width in enumerate(widths))
        self._values += len(outputs)
        self.ops.append(Op(name, inputs, outputs, params))
        return outputs

    def embed(self, weight: Weight) -> Value:
        """Rows of the embedding matrix for the batch's token ids."""
        return self.emit("embed", (), (weight.cols,), weight=weight)[0]

    def rms_norm(self, x: Value, weight: Weight, eps: float) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight, per token; per head where the weight has the width of one."""
        if x.width % weight.cols:
            raise ValueError(f"rms_norm: a weight of {weight.cols} values does not fit heads of {x.width}")
        return self.emit("rms_norm", (x,), (x.width,), weight=weight, eps=eps)[0]

    def linear(self, x: Value, *weights: Weight) -> Any:
        """x W^T (+ bias) for each weight: one value, or as many as weights. Together they quantize x once."""
        outputs = self.emit("linear", (x,), tuple(w.rows for w in weights), weights=weights)
        return outputs[0] if len(outputs) == 1 else outputs

    def rope(self, x: Value, rope: Rope) -> Value:
        """Turn each head of x by its token's position."""
        return self.emit("rope", (x,), (x.width,), rope=rope)[0]

    def attention(self, q: Value, cache: RecordedCache, scale: float, window: int = 0, cap: float = 0.0) -> Value:
        """softmax(scale * q k^T) v over the cached positions up to each token's own; query heads share key-value heads in groups.

        window: only the last so many positions, the token's own among them; 0: all. cap: scores s become cap * tanh(s / cap); 0: they stay.
        """
        return self.emit("attention", (q,), (q.width,), layer=cache.layer, scale=scale, window=window, cap=cap)[0]

    def silu_mul(self, gate: Value, up: Value) -> Value:
        """silu(gate) * up."""
        return self.emit("silu_mul", (gate, up), (gate.width,))[0]

    def gelu_mul(self, gate: Value, up: Value) -> Value:
        """gelu(gate) * up, gelu by its tanh approximation."""
        return self.emit("gelu_mul", (gate, up), (gate.width,))[0]

    def sigmoid_scale(self, x: Value, gate: Value) -> Value:
        """x * sigmoid(gate), gate (n, 1): one number for each token."""
        return self.emit("sigmoid_scale", (x, gate), (x.width,))[0]

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor."""
        return self.emit("scale", (x,), (x.width,), factor=factor)[0]

    def soft_cap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap)."""
        return self.emit("soft_cap", (x,), (x.width,), cap=cap)[0]

    def route(self, logits: Value, n_used: int, normalised: bool) -> Value:
        """Each token's `n_used` likeliest experts by softmax(logits), (n_tokens, n_experts): (n_tokens, 2 * n_used), first their numbers,
        the likeliest first, then their probabilities; normalised: so that these sum up to 1."""
        return self.emit("route", (logits,), (2 * n_used,), n_used=n_used, normalised=normalised)[0]

    def experts(self, x: Value, routes: Value, gate: Weight, up: Weight, down: Weight) -> Value:
        """The sum of probability * W_down (silu(W_gate x) * W_up x) over the experts that `routes` gives a token; each weight is all
        experts' matrices, one below the other."""
        return self.emit("experts", (x, routes), (x.width,), weights=(gate, up, down))[0]

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.emit("add", (a, b), (a.width,))[0]

    def outputs(self, x: Value) -> Value:
        """The rows of x that become logits; once per forward pass, and what follows runs on those rows only."""
        return self.emit("outputs", (x,), (x.width,))[0]
