"""What a checkpoint says a model computes, in Hugging Face's own conventions: the other witness, which shares nothing with the conversion.

An architecture's oracle reads config.json and the checkpoint's tensors by the names transformers gives them, with the weights in the order
they are stored. It must not import `ggpy.arch` or the rest of the converter's mapping: a fault that both had would not be found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggpy.converter.certificate.probe import Probe
from ggpy.converter.certificate.products import Products, Rows
from ggpy.converter.certificate.walk import State
from ggpy.errors import CheckpointError

Array = NDArray[np.float32]
Oracle = Callable[["Parameters", Probe], Iterator[State]]
"""(parameters, probe) -> the states in order: "token_embd", "blk.0", …, and "output" with the logits after the probe's tokens `kept`."""


class Parameters:
    """A checkpoint as transformers' modules see it. config: config.json. Module names lack `.weight`."""

    def __init__(self, config: Mapping[str, Any], find: Callable[[str], Rows | None], products: Products):
        self.config, self._find, self._products = config, find, products

    def embedding(self, module: str, ids: np.ndarray) -> Array:
        """torch.nn.Embedding: (n, d)."""
        return self._rows(f"{module}.weight").at(ids)

    def vector(self, name: str) -> Array:
        """A norm's weight or a bias: (d,)."""
        return self._rows(name).values().reshape(-1)

    def linear(self, x: Array, module: str, *, bias: bool = False) -> Array:
        """torch.nn.Linear: (n, d_out)."""
        result = self._products(x, self._rows(f"{module}.weight"))
        return result + self.vector(f"{module}.bias") if bias else result

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def _rows(self, name: str) -> Rows:
        rows = self._find(name)
        if rows is None:
            raise CheckpointError(f"tensor {name} is missing, which the model as transformers has it reads")
        return rows


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps) * weight, float32 (n, d)."""
    mean = np.square(x, dtype=np.float64).mean(-1, keepdims=True)
    return (x / np.sqrt(mean + eps)).astype(np.float32) * weight


def silu(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return (x / (1 + np.exp(-x))).astype(np.float32)


def rotate_half(x: Array, angles: NDArray[np.float64], amplitude: float = 1.0) -> Array:
    """Rotary embedding of heads (n, n_heads, head_dim) by angles (n, n_rot / 2): of their first n_rot values, pairing i with i + n_rot / 2,
    cosines and sines times `amplitude`."""
    cosines, sines = (amplitude * f(np.concatenate([angles, angles], -1)).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    turned, rest = np.split(x, [cosines.shape[-1]], -1)
    first, second = np.split(turned, 2, -1)
    turned = (turned * cosines + np.concatenate([-second, first], -1) * sines).astype(np.float32)
    return np.concatenate([turned, rest], -1)


def rotary_angles(config: Mapping[str, Any], head_dim: int, positions: np.ndarray) -> tuple[NDArray[np.float64], float]:
    """Radians (n, n_rot / 2), and what cosines and sines are multiplied by: transformers' `ROPE_INIT_FUNCTIONS` for default, linear,
    dynamic (within the trained context), yarn, longrope and llama3. CheckpointError for others."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    head_dim = int(head_dim * (scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1))
    theta = scaling.get("rope_theta") or config.get("rope_theta") or 10000.0
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "linear":
        return positions[:, None] * frequencies / scaling["factor"], 1.0
    if kind == "llama3":
        original = scaling["original_max_position_embeddings"]
        longest, shortest = original / scaling["low_freq_factor"], original / scaling["high_freq_factor"]
        frequencies = np.array([_llama3(f, longest, shortest, original, scaling) for f in frequencies])
    elif kind == "yarn":
        factor = scaling["factor"]
        frequencies = _yarn(
            frequencies, theta, scaling, scaling.get("original_max_position_embeddings") or config["max_position_embeddings"]
        )
        return positions[:, None] * frequencies, scaling.get("attention_factor") or (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
    elif kind in ("longrope", "su"):
        original = scaling.get("original_max_position_embeddings") or config["original_max_position_embeddings"]
        factors = scaling["long_factor" if positions.max() >= original else "short_factor"]
        factor = scaling.get("factor") or config["max_position_embeddings"] / original
        amplitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        return positions[:, None] * frequencies / np.array(factors), scaling.get("attention_factor") or amplitude
    elif kind not in ("default", "none", "dynamic"):
        raise CheckpointError(f"rotary scaling of kind {kind} is not checked yet")
    return positions[:, None] * frequencies, 1.0


def _yarn(frequencies: NDArray[np.float64], theta: float, scaling: Mapping[str, Any], trained: int) -> NDArray[np.float64]:
    dim = 2 * len(frequencies)
    fast, slow = (
        dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1)
    )
    first, last = max(math.floor(fast), 0), min(math.ceil(slow), dim - 1)
    result = np.empty_like(frequencies)
    for i, frequency in enumerate(frequencies):
        slowed = min(max((i - first) / (last - first if last != first else 0.001), 0), 1)
        result[i] = slowed * frequency / scaling["factor"] + (1 - slowed) * frequency
    return result


def _llama3(frequency: float, longest: float, shortest: float, original: float, scaling: Mapping[str, Any]) -> float:
    wavelength = 2 * math.pi / frequency
    if wavelength < shortest:
        return frequency
    if wavelength > longest:
        return frequency / scaling["factor"]
    smooth = (original / wavelength - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
    return (1 - smooth) * frequency / scaling["factor"] + smooth * frequency


def attend(q: Array, k: Array, v: Array, probe: Probe, scale: float, window: int | None = None, cap: float | None = None) -> Array:
    """Causal attention within each of the probe's segments: (n, n_heads * head_dim) from q (n, n_heads, head_dim) and k, v
    (n, n_kv_heads, head_dim), whose heads are repeated for neighbouring heads of q. window: positions seen, the token's own among them.
    cap: scores become cap * tanh(scores / cap)."""
    group = q.shape[1] // k.shape[1]
    parts = []
    for s in probe.segments:
        queries = q[s].transpose(1, 0, 2)  # (n_heads, n, head_dim)
        keys, values = (np.repeat(x[s].transpose(1, 0, 2), group, 0) for x in (k, v))
        scores = np.einsum("hqd,hkd->hqk", queries, keys) * np.float32(scale)  # no BLAS: its threads would spin for so little
        if cap:
            scores = np.tanh(scores / np.float32(cap)) * np.float32(cap)
        seen = np.tri(scores.shape[1], dtype=bool)
        if window:
            seen &= ~np.tri(scores.shape[1], k=-window, dtype=bool)
        scores = np.where(seen, scores, np.float32(-np.inf))
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(np.einsum("hqk,hkd->qhd", weights / weights.sum(-1, keepdims=True), values))
    return np.concatenate(parts).reshape(len(q), -1)


def in_stored_order(x: Array) -> Array:
    """Heads (n, n_heads, head_dim) as they are: (n, d)."""
    return x.reshape(len(x), -1)


def neighbouring_pairs(x: Array) -> Array:
    """Heads (n, n_heads, head_dim) in the order GGUF's Llama keeps them, in which halves i and i + head_dim / 2 are neighbours: (n, d)."""
    halves = x.shape[-1] // 2
    result = np.empty_like(x)
    result[..., 0::2], result[..., 1::2] = x[..., :halves], x[..., halves:]
    return result.reshape(len(x), -1)
