"""Llama and the models that share its graph: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config, read_config
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import llama3_frequency_factors, rope_settings, scaling_metadata
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import INTERLEAVED

# --- conversion: what a Hugging Face checkpoint becomes ---------------------------------------------------------------


def _heads(hf: HFConfig) -> tuple[int, int]:
    n_heads = hf.integer("num_attention_heads", maximum=2**16)
    n_kv_heads = hf.integer("num_key_value_heads", n_heads, maximum=n_heads)
    if n_heads % n_kv_heads:
        raise hf.refuse("num_key_value_heads", f"a divisor of num_attention_heads, {n_heads}")
    return n_heads, n_kv_heads


def _head_dim(hf: HFConfig) -> int:
    n_heads, d_model = _heads(hf)[0], hf.integer("hidden_size")
    if "head_dim" not in hf and d_model % n_heads:
        raise hf.refuse("hidden_size", f"a multiple of num_attention_heads, {n_heads}, as head_dim is not given")
    head_dim = hf.integer("head_dim", d_model // n_heads, maximum=2**16)
    if head_dim % 2:
        raise hf.refuse("head_dim", "an even number, for rotary pairs")
    return head_dim


def interleave_rotary_pairs(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorder (n_heads * head_dim, …) from rotary halves (i, i + head_dim / 2) to neighbours (2i, 2i + 1), as GGUF keeps them."""
    halves = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _q_order(hf: HFConfig, n: int) -> np.ndarray:
    return interleave_rotary_pairs(np.arange(n), _heads(hf)[0])


def _k_order(hf: HFConfig, n: int) -> np.ndarray:
    return interleave_rotary_pairs(np.arange(n), _heads(hf)[1])


_LAYER = "model.layers.{i}."

RULES = (
    TensorRule("token_embd.weight", "model.embed_tokens.weight", ("n_vocab", "d_model")),
    TensorRule("blk.{i}.attn_norm.weight", _LAYER + "input_layernorm.weight", ("d_model",)),
    TensorRule("blk.{i}.attn_q.weight", _LAYER + "self_attn.q_proj.weight", ("d_q", "d_model"), _q_order),
    TensorRule("blk.{i}.attn_q.bias", _LAYER + "self_attn.q_proj.bias", ("d_q",), _q_order, switch="attention_bias"),
    TensorRule("blk.{i}.attn_k.weight", _LAYER + "self_attn.k_proj.weight", ("d_kv", "d_model"), _k_order),
    TensorRule("blk.{i}.attn_k.bias", _LAYER + "self_attn.k_proj.bias", ("d_kv",), _k_order, switch="attention_bias"),
    TensorRule("blk.{i}.attn_v.weight", _LAYER + "self_attn.v_proj.weight", ("d_kv", "d_model")),
    TensorRule("blk.{i}.attn_v.bias", _LAYER + "self_attn.v_proj.bias", ("d_kv",), switch="attention_bias"),
    TensorRule("blk.{i}.attn_output.weight", _LAYER + "self_attn.o_proj.weight", ("d_model", "d_q")),
    TensorRule("blk.{i}.attn_output.bias", _LAYER + "self_attn.o_proj.bias", ("d_model",), switch="attention_bias"),
    TensorRule("blk.{i}.ffn_norm.weight", _LAYER + "post_attention_layernorm.weight", ("d_model",)),
    TensorRule("blk.{i}.ffn_gate.weight", _LAYER + "mlp.gate_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_gate.bias", _LAYER + "mlp.gate_proj.bias", ("d_ff",), switch="mlp_bias"),
    TensorRule("blk.{i}.ffn_up.weight", _LAYER + "mlp.up_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_up.bias", _LAYER + "mlp.up_proj.bias", ("d_ff",), switch="mlp_bias"),
    TensorRule("blk.{i}.ffn_down.weight", _LAYER + "mlp.down_proj.weight", ("d_model", "d_ff")),
    TensorRule("blk.{i}.ffn_down.bias", _LAYER + "mlp.down_proj.bias", ("d_model",), switch="mlp_bias"),
    TensorRule("output_norm.weight", "model.norm.weight", ("d_model",)),
    TensorRule("output.weight", "lm_head.weight", ("n_vocab", "d_model"), tied="model.embed_tokens.weight"),
)


def sizes(hf: HFConfig) -> dict[str, int]:
    """The sizes that the rules name."""
    (n_heads, n_kv_heads), head_dim = _heads(hf), _head_dim(hf)
    return {
        "n_vocab": hf.integer("vocab_size"),
        "d_model": hf.integer("hidden_size"),
        "d_q": n_heads * head_dim,
        "d_kv": n_kv_heads * head_dim,
        "d_ff": hf.integer("intermediate_size"),
    }


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `llama.*` keys of a config.json, in the order llama.cpp's converter writes them."""
    if hf.string("hidden_act", "silu") not in ("silu", "swish"):
        raise hf.refuse("hidden_act", "silu, the only activation this architecture has in GGUF")
    if hf.number("partial_rotary_factor", 1.0) != 1.0:
        raise hf.refuse("partial_rotary_factor", "1: rotary positions over whole heads")
    n_heads, n_kv_heads = _heads(hf)
    d_model, head_dim, rope = hf.integer("hidden_size"), _head_dim(hf), rope_settings(hf)
    context_length = hf.integer("max_position_embeddings")
    values: dict[str, Any] = {
        "block_count": hf.integer("num_hidden_layers", maximum=4096),
        "context_length": min(context_length, _window(hf) or context_length),
        "embedding_length": d_model,
        "feed_forward_length": hf.integer("intermediate_size"),
        "attention.head_count": n_heads,
        "attention.head_count_kv": n_kv_heads,
        **scaling_metadata(rope, context_length),
        "rope.freq_base": rope.theta,
        "attention.layer_norm_rms_epsilon": hf.number("rms_norm_eps", above=0),
        "vocab_size": hf.integer("vocab_size"),
        "rope.dimension_count": head_dim,
    }
    if head_dim * n_heads != d_model:
        values |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    return {f"llama.{key}": value for key, value in values.items()}


def extra_tensors(hf: HFConfig) -> dict[str, np.ndarray]:
    """`rope_freqs.weight` of models with Llama 3's rotary scaling."""
    rope = rope_settings(hf)
    return {"rope_freqs.weight": llama3_frequency_factors(rope, _head_dim(hf))} if rope.kind == "llama3" else {}


def _window(hf: HFConfig) -> int | None:
    """The sliding attention window, where it is shorter than the context."""
    if not hf.boolean("use_sliding_window", True):
        return None
    context_length = hf.integer("max_position_embeddings")
    window = hf.integer("sliding_window", context_length)
    return window if window < context_length else None


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a llama file cannot say."""
    found = []
    if window := _window(hf):
        context_length = hf.integer("max_position_embeddings")
        found.append(f"sliding_window {window} has no place in a llama file: context length set to {window}, not {context_length}")
    if rope_settings(hf).kind == "dynamic":
        found.append("dynamic rotary scaling has no place in a llama file: exact up to the trained context, unscaled beyond")
    return found


def attn_v_boost(metadata: Mapping[str, Any]) -> bool:
    """Whether this is the 70B shape: 80 layers with grouped heads, which llama-quantize gives a better attn_v."""
    heads, kv_heads = (np.ravel(metadata.get(f"llama.attention.{key}", 0))[0] for key in ("head_count", "head_count_kv"))
    return bool(metadata.get("llama.block_count") == 80 and kv_heads != 0 and heads != kv_heads)


# --- running: what the file's tensors compute --------------------------------------------------------------------------


def config(file: GGUFFile) -> Config:
    """Typed hyper-parameters of a llama file; GGUF keeps its rotary pairs as neighbours."""
    return read_config(file, "llama", pairing=INTERLEAVED)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of the forward pass and its shape, rows first; `?` marks those a file may lack."""
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
    return found | {"output_norm.weight": (d_model,), "output.weight?": (config.n_vocab, d_model)}


def layer(op, config: Config, w, cache, x):  # x: (n_tokens, d_model)
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, w.attn_q, w.attn_k, w.attn_v)  # (n_tokens, n_heads * head_dim), twice (n_tokens, n_kv_heads * head_dim)
    a = op.attention(op.rope(q, config.rope), cache.append(op.rope(k, config.rope), v), config.attention_scale)
    x = op.add(x, op.linear(a, w.attn_output))
    h = op.rms_norm(x, w.ffn_norm, config.norm_eps)
    gate, up = op.linear(h, w.ffn_gate, w.ffn_up)  # (n_tokens, d_ff)
    return op.add(x, op.linear(op.silu_mul(gate, up), w.ffn_down))


def forward(op, weights, config: Config):
    """Logits (n_outputs, n_vocab) of the batch that `op` holds."""
    x = op.embed(weights.token_embd)
    for w, cache in zip(weights.layers, op.caches, strict=True):
        x = layer(op, config, w, cache, x)
    x = op.rms_norm(op.outputs(x), weights.output_norm, config.norm_eps)
    return op.linear(x, getattr(weights, "output", weights.token_embd))  # without a head of its own: tied to the embedding


LLAMA = Architecture(
    name="llama",
    hf_classes=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM"),
    rules=RULES,
    sizes=sizes,
    metadata=metadata,
    extra_tensors=extra_tensors,
    remarks=remarks,
    ignored=(_LAYER + "self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"),
    attn_v_boost=attn_v_boost,
    config=config,
    shapes=shapes,
    forward=forward,
)
