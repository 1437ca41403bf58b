"""Qwen2's mixtures of experts: beside those that a token is sent to, one that all share, as far as a gate lets it through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ggpy.arch import decoder, mixture, qwen2
from ggpy.arch.architecture import TensorRule
from ggpy.arch.config import MAX_DIM, Config, read_config
from ggpy.arch.decoder import LAYER, sliding_window
from ggpy.arch.decoder_export import mixture_hf_config
from ggpy.arch.hf_config import HFConfig
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import HALVES

# --- conversion ---------------------------------------------------------------------------------------------------------

_EXPERT, _SHARED = LAYER + "mlp.experts.{e}.", LAYER + "mlp.shared_expert."
_EXPERTS = mixture.expert_rules(
    LAYER + "mlp.gate.weight", _EXPERT + "gate_proj.weight", _EXPERT + "up_proj.weight", _EXPERT + "down_proj.weight"
)
_SHARED_EXPERT = (
    TensorRule("blk.{i}.ffn_gate_inp_shexp.weight", LAYER + "mlp.shared_expert_gate.weight", ("d_model",), one_row=True),
    TensorRule("blk.{i}.ffn_gate_shexp.weight", _SHARED + "gate_proj.weight", ("d_shared", "d_model")),
    TensorRule("blk.{i}.ffn_up_shexp.weight", _SHARED + "up_proj.weight", ("d_shared", "d_model")),
    TensorRule("blk.{i}.ffn_down_shexp.weight", _SHARED + "down_proj.weight", ("d_model", "d_shared")),
)


def sizes(hf: HFConfig) -> dict[str, int]:
    """The sizes that rules name."""
    return mixture.sizes(hf, "moe_intermediate_size") | {"d_shared": hf.integer("shared_expert_intermediate_size")}


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `qwen2moe.*` keys of a config.json. In such a file every layer has experts, and what a router gives them is not scaled."""
    if hf.boolean("norm_topk_prob", False):
        raise hf.refuse("norm_topk_prob", "false: probabilities of a token's experts as they are among all")
    mixture.check_every_layer(hf)
    return (
        decoder.metadata(hf, "qwen2moe", sliding_window(hf, unless_told=False))
        | mixture.metadata(hf, "qwen2moe")
        | {
            "qwen2moe.expert_feed_forward_length": hf.integer("moe_intermediate_size"),
            "qwen2moe.expert_shared_feed_forward_length": hf.integer("shared_expert_intermediate_size"),
        }
    )


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a qwen2moe file cannot say."""
    found = decoder.remarks(hf, "qwen2moe", sliding_window(hf, unless_told=False))
    if hf.boolean("tie_word_embeddings", False):
        found.append("tie_word_embeddings is true: llama.cpp reads qwen2moe files with a head of their own only")
    return found


def export(file: GGUFFile, config: Config) -> dict[str, Any]:
    """config.json of the checkpoint that a qwen2moe file holds."""
    assert isinstance(config, Qwen2MoeConfig)
    values = mixture_hf_config(file, config, model_class="Qwen2MoeForCausalLM", model_type="qwen2_moe", width_key="moe_intermediate_size")
    return values | {"shared_expert_intermediate_size": config.d_shared, "norm_topk_prob": False}


# --- running ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Qwen2MoeConfig(Config):
    """Beside Config: d_shared, the width of the expert that all tokens share."""

    d_shared: int


def config(file: GGUFFile) -> Qwen2MoeConfig:
    """Typed hyper-parameters of a qwen2moe file."""
    found, meta = read_config(file, "qwen2moe", pairing=HALVES), file.metadata
    meta.integer("qwen2moe.expert_count", minimum=2)
    default = meta.integer("qwen2moe.feed_forward_length")  # of the first files
    shared = meta.integer("qwen2moe.expert_shared_feed_forward_length", default=default, minimum=1, maximum=MAX_DIM)
    return Qwen2MoeConfig(**vars(found), d_shared=int(shared))


def shapes(config: Qwen2MoeConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the forward pass and its shape, rows first; `?` marks those a file may lack."""
    found, shape = mixture.shapes(config), (config.d_shared, config.d_model)
    for i in range(config.n_layers):
        found[f"blk.{i}.ffn_gate_inp_shexp.weight"] = (config.d_model,)
        found[f"blk.{i}.ffn_gate_shexp.weight"] = found[f"blk.{i}.ffn_up_shexp.weight"] = shape
        found[f"blk.{i}.ffn_down_shexp.weight"] = shape[::-1]
    return found


def layer(op, config: Qwen2MoeConfig, w, cache, x):  # x: (n_tokens, d_model)
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, w.attn_q, w.attn_k, w.attn_v)  # (n_tokens, n_heads * head_dim), twice (n_tokens, n_kv_heads * head_dim)
    a = op.attention(op.rope(q, config.rope), cache.append(op.rope(k, config.rope), v), config.attention_scale)
    x = op.add(x, op.linear(a, w.attn_output))
    h = op.rms_norm(x, w.ffn_norm, config.norm_eps)
    gate, up = op.linear(h, w.ffn_gate_shexp, w.ffn_up_shexp)  # (n_tokens, d_shared)
    shared = op.linear(op.silu_mul(gate, up), w.ffn_down_shexp)
    x = op.add(x, op.sigmoid_scale(shared, op.linear(h, w.ffn_gate_inp_shexp)))
    return op.add(x, mixture.feed_forward(op, config, w, h, normalised=False))


QWEN2MOE = replace(
    qwen2.QWEN2,
    name="qwen2moe",
    hf_classes=("Qwen2MoeForCausalLM",),
    rules=mixture.with_experts(qwen2.RULES, (*_EXPERTS, *_SHARED_EXPERT)),
    sizes=sizes,
    metadata=metadata,
    remarks=remarks,
    attn_v_boost=partial(decoder.attn_v_boost, architecture="qwen2moe"),
    config=config,
    shapes=shapes,
    forward=partial(decoder.forward, layer=layer),
    hf_config=export,
)
