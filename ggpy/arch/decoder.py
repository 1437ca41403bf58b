"""What checkpoints of decoder-only models with gated feed-forward layers share: sizes, names, metadata, the tensors of their graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ggpy.arch.architecture import TensorRule
from ggpy.arch.config import Config
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import llama3_frequency_factors, rope_settings, scaling_metadata

LAYER = "model.layers.{i}."
EMBEDDING = TensorRule("token_embd.weight", "model.embed_tokens.weight", ("n_vocab", "d_model"))
OUTPUT_NORM = TensorRule("output_norm.weight", "model.norm.weight", ("d_model",))
OUTPUT = TensorRule("output.weight", "lm_head.weight", ("n_vocab", "d_model"), tied="model.embed_tokens.weight")
IGNORED = (LAYER + "self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")


def with_bias(matrix: TensorRule, switch: str | None = None) -> tuple[TensorRule, TensorRule]:
    """The rule of a matrix and that of its bias, which is there if the config key `switch` says so, or always."""
    gguf, hf = (name.removesuffix("weight") + "bias" for name in (matrix.gguf, matrix.hf))
    return matrix, replace(matrix, gguf=gguf, hf=hf, shape=matrix.shape[:1], switch=switch)


def heads(hf: HFConfig) -> tuple[int, int]:
    """(query heads, key-value heads)."""
    n_heads = hf.integer("num_attention_heads", maximum=2**16)
    n_kv_heads = hf.integer("num_key_value_heads", n_heads, maximum=n_heads)
    if n_heads % n_kv_heads:
        raise hf.refuse("num_key_value_heads", f"a divisor of num_attention_heads, {n_heads}")
    return n_heads, n_kv_heads


def head_dim(hf: HFConfig) -> int:
    """Values per head."""
    n_heads, d_model = heads(hf)[0], hf.integer("hidden_size")
    if "head_dim" not in hf and d_model % n_heads:
        raise hf.refuse("hidden_size", f"a multiple of num_attention_heads, {n_heads}, as head_dim is not given")
    dim = hf.integer("head_dim", d_model // n_heads, maximum=2**16)
    if dim % 2:
        raise hf.refuse("head_dim", "an even number, for rotary pairs")
    return dim


def sizes(hf: HFConfig, dim: int | None = None) -> dict[str, int]:
    """The sizes that rules name; dim: values per head, where `head_dim` does not say it."""
    (n_heads, n_kv_heads), dim = heads(hf), dim or head_dim(hf)
    return {
        "n_vocab": hf.integer("vocab_size"),
        "d_model": hf.integer("hidden_size"),
        "d_head": dim,
        "d_q": n_heads * dim,
        "d_kv": n_kv_heads * dim,
        "d_ff": hf.integer("intermediate_size"),
    }


def check_activation(hf: HFConfig) -> None:
    """Refuse any but silu."""
    if hf.string("hidden_act", "silu") not in ("silu", "swish"):
        raise hf.refuse("hidden_act", "silu, the only activation this architecture has in GGUF")


def metadata(hf: HFConfig, architecture: str, window: int | None = None) -> dict[str, Any]:
    """The `{architecture}.*` keys of a config.json, in the order llama.cpp's converter writes them.

    window: a sliding attention window that the file cannot express: the context length is cut to it.
    """
    check_activation(hf)
    if hf.number("partial_rotary_factor", 1.0) != 1.0:
        raise hf.refuse("partial_rotary_factor", "1: rotary positions over whole heads")
    n_heads, n_kv_heads = heads(hf)
    d_model, dim, rope = hf.integer("hidden_size"), head_dim(hf), rope_settings(hf)
    context_length = hf.integer("max_position_embeddings")
    values: dict[str, Any] = {
        "block_count": hf.integer("num_hidden_layers", maximum=4096),
        "context_length": min(context_length, window or context_length),
        "embedding_length": d_model,
        "feed_forward_length": hf.integer("intermediate_size"),
        "attention.head_count": n_heads,
        "attention.head_count_kv": n_kv_heads,
        **scaling_metadata(rope, context_length),
        "rope.freq_base": rope.theta,
        "attention.layer_norm_rms_epsilon": hf.number("rms_norm_eps", above=0),
        "vocab_size": hf.integer("vocab_size"),
        "rope.dimension_count": dim,
    }
    if dim * n_heads != d_model:
        values |= {"attention.key_length": dim, "attention.value_length": dim}
    return {f"{architecture}.{key}": value for key, value in values.items()}


def frequency_factors(hf: HFConfig) -> dict[str, np.ndarray]:
    """`rope_freqs.weight` of models with Llama 3's rotary scaling."""
    rope = rope_settings(hf)
    return {"rope_freqs.weight": llama3_frequency_factors(rope, head_dim(hf))} if rope.kind == "llama3" else {}


def sliding_window(hf: HFConfig, *, unless_told: bool) -> int | None:
    """The sliding attention window, where it is shorter than the context; `unless_told`: whether it counts without use_sliding_window."""
    if not hf.boolean("use_sliding_window", unless_told):
        return None
    context_length = hf.integer("max_position_embeddings")
    window = hf.integer("sliding_window", context_length)
    return window if window < context_length else None


def remarks(hf: HFConfig, architecture: str, window: int | None = None) -> list[str]:
    """What of a config.json a file of an architecture without windows cannot say."""
    found = []
    if window:
        context_length = hf.integer("max_position_embeddings")
        found.append(f"sliding_window {window} has no place in a {architecture} file: context length set to {window}, not {context_length}")
    if rope_settings(hf).kind == "dynamic":
        key = f"{architecture}.rope.scaling.dynamic_factor"
        found.append(
            f"dynamic rotary scaling is written as {key}, which llama.cpp does not read: there it is unscaled beyond the trained context"
        )
    return found


def shapes(config: Config, *, head_norms: bool = False) -> dict[str, tuple[int, ...]]:
    """Every tensor of the forward pass and its shape, rows first; `?` marks those a file may lack. head_norms: of each head of q and k."""
    d_model, d_q, d_kv = config.d_model, config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.n_vocab, d_model)}
    for i in range(config.n_layers):
        matrices = {
            "attn_q": (d_q, d_model), "attn_k": (d_kv, d_model), "attn_v": (d_kv, d_model), "attn_output": (d_model, d_q),
            "ffn_gate": (config.d_ff, d_model), "ffn_up": (config.d_ff, d_model), "ffn_down": (d_model, config.d_ff),
        }  # fmt: skip
        for name, shape in matrices.items():
            found[f"blk.{i}.{name}.weight"] = shape
            found[f"blk.{i}.{name}.bias?"] = shape[:1]
        found[f"blk.{i}.attn_norm.weight"] = found[f"blk.{i}.ffn_norm.weight"] = (d_model,)
        if head_norms:
            found[f"blk.{i}.attn_q_norm.weight"] = found[f"blk.{i}.attn_k_norm.weight"] = (config.head_dim,)
    return found | {"output_norm.weight": (d_model,), "output.weight?": (config.n_vocab, d_model)}


def logits(op, weights, config: Config, x):
    """(n_outputs, n_vocab) of the hidden states behind the last layer."""
    x = op.rms_norm(op.outputs(x), weights.output_norm, config.norm_eps)
    return op.linear(x, getattr(weights, "output", weights.token_embd))  # without a head of its own: tied to the embedding


def forward(op, weights, config: Config, *, layer: Callable[..., Any]):
    """Logits (n_outputs, n_vocab) of the batch that `op` holds, by layers (op, config, w, cache, x) -> x that are all alike."""
    x = op.embed(weights.token_embd)
    for w, cache in zip(weights.layers, op.caches, strict=True):
        x = layer(op, config, w, cache, x)
    return logits(op, weights, config, x)


def attn_v_boost(metadata: Mapping[str, Any], architecture: str) -> bool:
    """Whether this is the 70B shape: 80 layers with grouped heads, which llama-quantize gives a better attn_v."""
    n_heads, n_kv_heads = (np.ravel(metadata.get(f"{architecture}.attention.{key}", 0))[0] for key in ("head_count", "head_count_kv"))
    return bool(metadata.get(f"{architecture}.block_count") == 80 and n_kv_heads != 0 and n_heads != n_kv_heads)
