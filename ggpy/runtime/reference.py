"""The op vocabulary in NumPy, eager and float32: the oracle that the tape is held against, and the definition of each op."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ggpy.blocks import dequantize
from ggpy.runtime.kv_cache import CacheShape
from ggpy.runtime.rotary import INTERLEAVED, Rope
from ggpy.runtime.weights import Weight


@dataclass
class ReferenceCache:
    """One layer's keys and values, float32 (positions, n_kv_heads, head_dim)."""

    keys: np.ndarray
    values: np.ndarray

    def append(self, keys: np.ndarray, values: np.ndarray) -> ReferenceCache:
        """Store this batch's keys and values, (n_tokens, n_kv_heads * head_dim) each, behind those of earlier positions."""
        shape = (len(keys), *self.keys.shape[1:])
        self.keys = np.concatenate([self.keys, keys.reshape(shape)])
        self.values = np.concatenate([self.values, values.reshape(shape)])
        return self


class ReferenceOps:
    """Runs each op at once on arrays (n_tokens, width). `tokens`: the batch's ids; `position`: of its first token;
    `n_outputs`: how many of the last rows `outputs` keeps."""

    def __init__(self, shape: CacheShape):
        empty = np.zeros((0, shape.n_kv_heads, shape.head_dim), np.float32)
        self.caches = [ReferenceCache(empty, empty) for _ in range(shape.n_layers)]
        self.tokens = np.zeros(0, np.int64)
        self.position = 0
        self.n_outputs = 1

    def embed(self, weight: Weight) -> np.ndarray:
        return dequantize(weight.data[self.tokens], weight.format)

    def rms_norm(self, x: np.ndarray, weight: Weight, eps: float) -> np.ndarray:
        heads = x.reshape(len(x), -1, weight.cols)
        mean = np.mean(heads.astype(np.float64) ** 2, axis=-1, keepdims=True)
        return ((heads / np.sqrt(mean + eps)).astype(np.float32) * dense(weight)).reshape(x.shape)

    def linear(self, x: np.ndarray, *weights: Weight) -> Any:
        products = (x @ dense(w).reshape(w.rows, w.cols).T for w in weights)
        results = tuple(y if w.bias is None else y + w.bias for y, w in zip(products, weights, strict=True))
        return results[0] if len(results) == 1 else results

    def rope(self, x: np.ndarray, rope: Rope) -> np.ndarray:
        cosines, sines = (t[:, None, :] for t in rope.tables(self.positions(len(x))))
        heads = x.reshape(len(x), -1, rope.head_dim)
        turned, rest = heads[..., : rope.n_rot], heads[..., rope.n_rot :]
        paired = turned.reshape(*turned.shape[:2], -1, 2) if rope.pairing == INTERLEAVED else _halves(turned)
        a, b = paired[..., 0], paired[..., 1]
        result = np.stack([a * cosines - b * sines, a * sines + b * cosines], axis=-1)
        result = result.reshape(turned.shape) if rope.pairing == INTERLEAVED else np.concatenate([result[..., 0], result[..., 1]], -1)
        return np.concatenate([result, rest], axis=-1).reshape(x.shape)

    def attention(self, q: np.ndarray, cache: ReferenceCache, scale: float, window: int = 0, cap: float = 0.0) -> np.ndarray:
        n_tokens, (n_positions, n_kv_heads, head_dim) = len(q), cache.keys.shape
        grouped = q.reshape(n_tokens, n_kv_heads, -1, head_dim)  # (n_tokens, n_kv_heads, group, head_dim)
        scores = np.einsum("tkgd,pkd->tkgp", grouped, cache.keys) * np.float32(scale)
        if cap:
            scores = self.soft_cap(scores, cap)
        # by how much each position lies before each token's own
        before = n_positions - n_tokens + np.arange(n_tokens)[:, None] - np.arange(n_positions)
        allowed = (before >= 0) & (before < (window or n_positions))
        scores = np.where(allowed[:, None, None, :], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("tkgp,pkd->tkgd", weights, cache.values).reshape(q.shape).astype(np.float32)

    def silu_mul(self, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return gate / (1 + np.exp(-gate)) * up

    def gelu_mul(self, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        inner = np.float32(math.sqrt(2 / math.pi)) * (gate + np.float32(0.044715) * gate * gate * gate)
        with np.errstate(over="ignore"):
            return gate / (1 + np.exp(-2 * inner)) * up

    def sigmoid_scale(self, x: np.ndarray, gate: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return x / (1 + np.exp(-gate))

    def scale(self, x: np.ndarray, factor: float) -> np.ndarray:
        return x * np.float32(factor)

    def soft_cap(self, x: np.ndarray, cap: float) -> np.ndarray:
        return np.float32(cap) * np.tanh(x / np.float32(cap))

    def route(self, logits: np.ndarray, n_used: int, normalised: bool) -> np.ndarray:
        numbers = np.argsort(-logits, axis=-1, kind="stable")[:, :n_used]
        likely = np.exp(logits - logits.max(-1, keepdims=True))
        weights = np.take_along_axis(likely / likely.sum(-1, keepdims=True), numbers, -1)
        if normalised:
            weights /= weights.sum(-1, keepdims=True)
        return np.concatenate([numbers, weights], -1).astype(np.float32)

    def experts(self, x: np.ndarray, routes: np.ndarray, gate: Weight, up: Weight, down: Weight) -> np.ndarray:
        numbers, weights = np.split(routes, 2, axis=-1)
        n_experts = down.rows // x.shape[1]
        gates, ups, downs = (w.split(*[w.rows // n_experts] * n_experts) for w in (gate, up, down))
        result = np.zeros_like(x)
        for number in np.unique(numbers).astype(int):
            tokens, ranks = np.nonzero(numbers == number)
            hidden = self.silu_mul(*self.linear(x[tokens], gates[number], ups[number]))
            result[tokens] += weights[tokens, ranks, None] * self.linear(hidden, downs[number])
        return result

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def positions(self, n: int) -> np.ndarray:
        """Positions of the batch's n tokens, (n,)."""
        return np.arange(self.position, self.position + n)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return x[-self.n_outputs :]


def dense(weight: Weight) -> np.ndarray:
    """float32 (rows, cols), or (cols,) for a vector."""
    values = dequantize(weight.data, weight.format)
    return values.reshape(weight.cols) if weight.rows == 1 else values.reshape(weight.rows, weight.cols)


def _halves(x: np.ndarray) -> np.ndarray:
    return np.stack(np.split(x, 2, axis=-1), axis=-1)
