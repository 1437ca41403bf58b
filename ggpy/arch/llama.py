"""Llama and the models that share its graph: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ggpy.arch import decoder, mixture
from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config, read_config
from ggpy.arch.decoder import EMBEDDING, LAYER, OUTPUT, OUTPUT_NORM, heads, sliding_window, with_bias
from ggpy.arch.decoder_export import ATTENTION_BIAS, MLP_BIAS, hf_config
from ggpy.arch.hf_config import HFConfig
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import INTERLEAVED

# --- conversion: what a Hugging Face checkpoint becomes ---------------------------------------------------------------


def interleave_rotary_pairs(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorder (n_heads * head_dim, …) from rotary halves (i, i + head_dim / 2) to neighbours (2i, 2i + 1), as GGUF keeps them."""
    halves = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _q_order(hf: HFConfig, n: int) -> np.ndarray:
    return interleave_rotary_pairs(np.arange(n), heads(hf)[0])


def _k_order(hf: HFConfig, n: int) -> np.ndarray:
    return interleave_rotary_pairs(np.arange(n), heads(hf)[1])


RULES = (
    EMBEDDING,
    TensorRule("blk.{i}.attn_norm.weight", LAYER + "input_layernorm.weight", ("d_model",)),
    *with_bias(TensorRule("blk.{i}.attn_q.weight", LAYER + "self_attn.q_proj.weight", ("d_q", "d_model"), _q_order), "attention_bias"),
    *with_bias(TensorRule("blk.{i}.attn_k.weight", LAYER + "self_attn.k_proj.weight", ("d_kv", "d_model"), _k_order), "attention_bias"),
    *with_bias(TensorRule("blk.{i}.attn_v.weight", LAYER + "self_attn.v_proj.weight", ("d_kv", "d_model")), "attention_bias"),
    *with_bias(TensorRule("blk.{i}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("d_model", "d_q")), "attention_bias"),
    TensorRule("blk.{i}.ffn_norm.weight", LAYER + "post_attention_layernorm.weight", ("d_model",)),
    *with_bias(TensorRule("blk.{i}.ffn_gate.weight", LAYER + "mlp.gate_proj.weight", ("d_ff", "d_model")), "mlp_bias"),
    *with_bias(TensorRule("blk.{i}.ffn_up.weight", LAYER + "mlp.up_proj.weight", ("d_ff", "d_model")), "mlp_bias"),
    *with_bias(TensorRule("blk.{i}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("d_model", "d_ff")), "mlp_bias"),
    OUTPUT_NORM,
    OUTPUT,
)


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `llama.*` keys of a config.json."""
    return decoder.metadata(hf, "llama", sliding_window(hf, unless_told=True))


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a llama file cannot say."""
    return decoder.remarks(hf, "llama", sliding_window(hf, unless_told=True))


# --- running: what the file's tensors compute --------------------------------------------------------------------------


def config(file: GGUFFile) -> Config:
    """Typed hyper-parameters of a llama file; GGUF keeps its rotary pairs as neighbours."""
    return read_config(file, "llama", pairing=INTERLEAVED)


def layer(op, config: Config, w, cache, x):  # x: (n_tokens, d_model)
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, w.attn_q, w.attn_k, w.attn_v)  # (n_tokens, n_heads * head_dim), twice (n_tokens, n_kv_heads * head_dim)
    a = op.attention(op.rope(q, config.rope), cache.append(op.rope(k, config.rope), v), config.attention_scale)
    x = op.add(x, op.linear(a, w.attn_output))
    h = op.rms_norm(x, w.ffn_norm, config.norm_eps)
    if config.n_experts:
        return op.add(x, mixture.feed_forward(op, config, w, h))
    gate, up = op.linear(h, w.ffn_gate, w.ffn_up)  # (n_tokens, d_ff)
    return op.add(x, op.linear(op.silu_mul(gate, up), w.ffn_down))


LLAMA = Architecture(
    name="llama",
    hf_classes=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM"),
    rules=RULES,
    sizes=decoder.sizes,
    metadata=metadata,
    extra_tensors=decoder.frequency_factors,
    remarks=remarks,
    ignored=decoder.IGNORED,
    attn_v_boost=partial(decoder.attn_v_boost, architecture="llama"),
    config=config,
    shapes=mixture.shapes,
    forward=partial(decoder.forward, layer=layer),
    hf_config=partial(hf_config, model_class="LlamaForCausalLM", model_type="llama", biases=ATTENTION_BIAS | MLP_BIAS),
)
