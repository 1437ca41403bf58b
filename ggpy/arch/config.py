"""The hyper-parameters that Llama-like architectures share, read from GGUF metadata with types, ranges and no silent default."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ggpy.errors import ModelError
from ggpy.gguf import GGUFFile
from ggpy.runtime.kv_cache import CacheShape
from ggpy.runtime.rotary import Rope, dynamic_base, yarn_amplitude, yarn_factors

MAX_LAYERS, MAX_HEADS, MAX_EXPERTS, MAX_DIM = 1 << 12, 1 << 14, 1 << 12, 1 << 20


@dataclass(frozen=True)
class Config:
    """n_*: counts; d_*: widths of vectors; head_dim: values per head; context_length: positions trained on.

    n_experts: 0 where feed-forward networks are dense; else d_ff is the width of an expert, n_experts_used how many a token goes to.
    rope_beyond: in contexts longer than so many positions, what gives, by the context's length, the rotary settings that take `rope`'s
    place throughout.
    """

    n_layers: int
    n_vocab: int
    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float
    rope: Rope
    rope_beyond: tuple[int, Callable[[int], Rope]] | None = None
    n_experts: int = 0
    n_experts_used: int = 0

    def for_context(self, length: int) -> Config:
        """The config of a context of `length` positions."""
        if self.rope_beyond is None or length <= self.rope_beyond[0]:
            return self
        return replace(self, rope=self.rope_beyond[1](length), rope_beyond=None)

    @property
    def cache_shape(self) -> CacheShape:
        return CacheShape(self.n_layers, self.n_kv_heads, self.head_dim)

    @property
    def attention_scale(self) -> float:
        return 1 / math.sqrt(self.head_dim)


def read_config(file: GGUFFile, architecture: str, *, pairing: int) -> Config:
    """The `{architecture}.*` keys of a file; `pairing`: which values of a head turn together (`runtime.rotary`).

    The number of layers and the widths are held against the tensor table, so that a forged count is refused before it is looped over.
    GGUFError: a key missing, of the wrong type or out of range. ModelError: keys that contradict each other, the tensors, or need what ggpy
    does not have.
    """
    meta = file.metadata

    def count(key: str, maximum: int, **default: int) -> int:
        return int(meta.integer(f"{architecture}.{key}", minimum=1, maximum=maximum, **default))

    n_layers = count("block_count", min(MAX_LAYERS, max(1, len(file.tensors))))
    d_model, d_ff = count("embedding_length", MAX_DIM), count("feed_forward_length", MAX_DIM)
    n_heads = count("attention.head_count", min(MAX_HEADS, d_model))
    n_kv_heads = count("attention.head_count_kv", n_heads, default=n_heads)
    if n_heads % n_kv_heads:
        raise ModelError(f"{file.path}: {architecture}.attention.head_count is {n_heads}, not a multiple of head_count_kv, {n_kv_heads}")
    head_dim = count("attention.key_length", 1 << 12, default=max(1, d_model // n_heads))
    value_dim = count("attention.value_length", 1 << 12, default=head_dim)
    if value_dim != head_dim:
        raise ModelError(f"{file.path}: {architecture}.attention.value_length is {value_dim}, expected key_length, {head_dim}")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{file.path}: no matrix token_embd.weight in the file")
    n_experts = int(meta.integer(f"{architecture}.expert_count", default=0, minimum=0, maximum=MAX_EXPERTS))
    n_experts_used = count("expert_used_count", n_experts) if n_experts else 0
    if n_experts:
        d_ff = count("expert_feed_forward_length", MAX_DIM, default=d_ff)
    rope, context_length = _rope(file, architecture, head_dim, pairing), count("context_length", 1 << 31)
    return Config(
        n_layers=n_layers,
        n_vocab=embedding.shape[0],
        d_model=d_model,
        d_ff=d_ff,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        context_length=context_length,
        norm_eps=float(meta.number(f"{architecture}.attention.layer_norm_rms_epsilon", minimum=0, maximum=1)),
        rope=rope,
        rope_beyond=_dynamic(file, architecture, rope, context_length),
        n_experts=n_experts,
        n_experts_used=n_experts_used,
    )


def _rope(file: GGUFFile, architecture: str, head_dim: int, pairing: int) -> Rope:
    meta, prefix = file.metadata, f"{architecture}.rope."
    n_rot = int(meta.integer(prefix + "dimension_count", default=head_dim, minimum=2, maximum=head_dim))
    if n_rot % 2:
        raise ModelError(f"{file.path}: {prefix}dimension_count is {n_rot}, expected an even number")
    base = float(meta.number(prefix + "freq_base", default=10000.0, minimum=1e-3, maximum=1e12))
    kind = meta.string(prefix + "scaling.type", default="none")
    if kind not in ("none", "linear", "yarn"):
        raise ModelError(f"{file.path}: {prefix}scaling.type is {kind!r}, supported are 'none', 'linear' and 'yarn'")
    factor = float(meta.number(prefix + "scaling.factor", default=1.0, minimum=1e-6, maximum=1e6)) if kind != "none" else 1.0
    factors = frequency_divisors(file, "rope_freqs.weight", n_rot)
    if kind != "yarn":
        return Rope(head_dim, n_rot, base, pairing, 1 / factor, factors)
    if factors is not None:
        raise ModelError(
            f"{file.path}: tensor rope_freqs.weight and {prefix}scaling.type 'yarn' both scale frequencies, expected one of them"
        )
    trained = int(meta.integer(prefix + "scaling.original_context_length", minimum=1, maximum=1 << 31))
    fast = float(meta.number(prefix + "scaling.yarn_beta_fast", default=32.0, minimum=1e-3, maximum=1e6))
    slow = float(meta.number(prefix + "scaling.yarn_beta_slow", default=1.0, minimum=1e-3, maximum=1e6))
    amplitude = yarn_amplitude(factor) * float(meta.number(prefix + "scaling.attn_factor", default=1.0, minimum=1e-3, maximum=1e3))
    return Rope(head_dim, n_rot, base, pairing, 1.0, yarn_factors(n_rot, base, factor, trained, fast, slow), amplitude)


def _dynamic(file: GGUFFile, architecture: str, rope: Rope, trained: int) -> tuple[int, Callable[[int], Rope]] | None:
    """As `Config.rope_beyond`: dynamic NTK scaling, whose base grows with the context's length beyond the trained one."""
    key = f"{architecture}.rope.scaling.dynamic_factor"
    if key not in file.metadata:
        return None
    factor = float(file.metadata.number(key, minimum=1e-3, maximum=1e6))
    if file.metadata.string(f"{architecture}.rope.scaling.type", default="none") != "none" or rope.n_rot < 4:
        raise ModelError(f"{file.path}: {key} is {factor:g}, expected none beside another scaling, or for less than 4 values of a head")
    return trained, lambda length: replace(rope, base=dynamic_base(rope.base, rope.n_rot, factor, trained, length))


def frequency_divisors(file: GGUFFile, name: str, n_rot: int) -> np.ndarray | None:
    """Divisors of the frequencies, (n_rot / 2,), as Llama 3.1 has them in `rope_freqs.weight`; None where a file lacks the tensor."""
    tensor = file.tensors.get(name)
    if tensor is None:
        return None
    if tensor.shape != (n_rot // 2,) or tensor.format.decode is None:
        raise ModelError(f"{file.path}: tensor {name} is {tensor.format.name} {tensor.shape}, expected F32 {(n_rot // 2,)}")
    factors = tensor.dequantize()
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ModelError(f"{file.path}: tensor {name} holds {factors.min()}, expected positive finite factors")
    return factors
