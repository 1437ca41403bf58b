"""Qwen3: Qwen2's graph without its biases, each head of q and k normed before it is rotated."""

from __future__ import annotations

from functools import partial
from typing import Any

from ggpy.arch import decoder, mixture
from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config, read_config
from ggpy.arch.decoder import EMBEDDING, LAYER, OUTPUT, OUTPUT_NORM, sliding_window, with_bias
from ggpy.arch.decoder_export import ATTENTION_BIAS, hf_config
from ggpy.arch.hf_config import HFConfig
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import HALVES

RULES = (
    EMBEDDING,
    TensorRule("blk.{i}.attn_norm.weight", LAYER + "input_layernorm.weight", ("d_model",)),
    *with_bias(TensorRule("blk.{i}.attn_q.weight", LAYER + "self_attn.q_proj.weight", ("d_q", "d_model")), "attention_bias"),
    TensorRule("blk.{i}.attn_q_norm.weight", LAYER + "self_attn.q_norm.weight", ("d_head",)),
    *with_bias(TensorRule("blk.{i}.attn_k.weight", LAYER + "self_attn.k_proj.weight", ("d_kv", "d_model")), "attention_bias"),
    TensorRule("blk.{i}.attn_k_norm.weight", LAYER + "self_attn.k_norm.weight", ("d_head",)),
    *with_bias(TensorRule("blk.{i}.attn_v.weight", LAYER + "self_attn.v_proj.weight", ("d_kv", "d_model")), "attention_bias"),
    *with_bias(TensorRule("blk.{i}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("d_model", "d_q")), "attention_bias"),
    TensorRule("blk.{i}.ffn_norm.weight", LAYER + "post_attention_layernorm.weight", ("d_model",)),
    TensorRule("blk.{i}.ffn_gate.weight", LAYER + "mlp.gate_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_up.weight", LAYER + "mlp.up_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("d_model", "d_ff")),
    OUTPUT_NORM,
    OUTPUT,
)


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `qwen3.*` keys of a config.json."""
    return decoder.metadata(hf, "qwen3", sliding_window(hf, unless_told=False))


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a qwen3 file cannot say."""
    return decoder.remarks(hf, "qwen3", sliding_window(hf, unless_told=False))


def config(file: GGUFFile) -> Config:
    """Typed hyper-parameters of a qwen3 file."""
    return read_config(file, "qwen3", pairing=HALVES)


def layer(op, config: Config, w, cache, x):  # x: (n_tokens, d_model)
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, w.attn_q, w.attn_k, w.attn_v)  # (n_tokens, n_heads * head_dim), twice (n_tokens, n_kv_heads * head_dim)
    q, k = op.rms_norm(q, w.attn_q_norm, config.norm_eps), op.rms_norm(k, w.attn_k_norm, config.norm_eps)  # head by head
    a = op.attention(op.rope(q, config.rope), cache.append(op.rope(k, config.rope), v), config.attention_scale)
    x = op.add(x, op.linear(a, w.attn_output))
    h = op.rms_norm(x, w.ffn_norm, config.norm_eps)
    if config.n_experts:
        return op.add(x, mixture.feed_forward(op, config, w, h))
    gate, up = op.linear(h, w.ffn_gate, w.ffn_up)  # (n_tokens, d_ff)
    return op.add(x, op.linear(op.silu_mul(gate, up), w.ffn_down))


QWEN3 = Architecture(
    name="qwen3",
    hf_classes=("Qwen3ForCausalLM",),
    rules=RULES,
    sizes=decoder.sizes,
    metadata=metadata,
    extra_tensors=decoder.frequency_factors,
    remarks=remarks,
    ignored=decoder.IGNORED,
    hf_config=partial(hf_config, model_class="Qwen3ForCausalLM", model_type="qwen3", biases=ATTENTION_BIAS),
    config=config,
    shapes=partial(mixture.shapes, head_norms=True),
    forward=partial(decoder.forward, layer=layer),
)
