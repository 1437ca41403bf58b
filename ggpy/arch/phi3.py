"""Phi-3, Phi-3.5 and Phi-4: Llama's graph with q, k and v in one tensor, gate and up in another, and two sets of rotary frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ggpy.arch import decoder, decoder_export
from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config, frequency_divisors, read_config
from ggpy.arch.decoder import EMBEDDING, LAYER, OUTPUT, OUTPUT_NORM, head_dim, heads
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import RopeSettings, rope_settings
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import HALVES, Rope

# --- conversion: what a Hugging Face checkpoint becomes ---------------------------------------------------------------

RULES = (
    EMBEDDING,
    TensorRule("blk.{i}.attn_norm.weight", LAYER + "input_layernorm.weight", ("d_model",)),
    TensorRule("blk.{i}.attn_qkv.weight", LAYER + "self_attn.qkv_proj.weight", ("d_qkv", "d_model")),
    TensorRule("blk.{i}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("d_model", "d_q")),
    TensorRule("blk.{i}.ffn_norm.weight", LAYER + "post_attention_layernorm.weight", ("d_model",)),
    TensorRule("blk.{i}.ffn_up.weight", LAYER + "mlp.gate_up_proj.weight", ("d_gate_up", "d_model")),
    TensorRule("blk.{i}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("d_model", "d_ff")),
    OUTPUT_NORM,
    OUTPUT,
)


def sizes(hf: HFConfig) -> dict[str, int]:
    """The sizes that rules name."""
    found = decoder.sizes(hf)
    return found | {"d_qkv": found["d_q"] + 2 * found["d_kv"], "d_gate_up": 2 * found["d_ff"]}


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `phi3.*` keys of a config.json, in the order llama.cpp's converter writes them."""
    decoder.check_activation(hf)
    (n_heads, n_kv_heads), rope = heads(hf), rope_settings(hf)
    context_length = hf.integer("max_position_embeddings")
    values: dict[str, Any] = {
        "context_length": context_length,
        "rope.scaling.original_context_length": _trained(hf, rope),
        "embedding_length": hf.integer("hidden_size"),
        "feed_forward_length": hf.integer("intermediate_size"),
        "block_count": hf.integer("num_hidden_layers", maximum=4096),
        "attention.head_count": n_heads,
        "attention.head_count_kv": n_kv_heads,
        "attention.layer_norm_rms_epsilon": hf.number("rms_norm_eps", above=0),
        "rope.dimension_count": _n_rot(hf, rope),
        "rope.freq_base": rope.theta,
        "attention.sliding_window": hf.integer("sliding_window", 0, minimum=0),
    }
    if _is_long(rope):
        values["rope.scaling.attn_factor"] = _amplitude(hf, rope)
    return {f"phi3.{key}": value for key, value in values.items()}


def factors(hf: HFConfig) -> dict[str, np.ndarray]:
    """Divisors of the rotary frequencies, for contexts beyond the trained one and for others: float32 (n_rot / 2,) each."""
    rope = rope_settings(hf)
    if not _is_long(rope):
        return {}
    n = _n_rot(hf, rope) // 2
    kinds = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}
    return {name: np.array(rope.scaling.numbers(key, n, above=0), np.float32) for name, key in kinds.items()}


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json is in a file but not read by all."""
    window, context_length = hf.integer("sliding_window", 0, minimum=0), hf.integer("max_position_embeddings")
    if not 0 < window < context_length:
        return []
    return [f"sliding_window {window} is shorter than the context of {context_length}: llama.cpp runs the file without it"]


def _is_long(rope: RopeSettings) -> bool:
    """Whether frequencies have divisors of their own, called su and yarn before they were longrope."""
    if rope.kind not in ("default", "longrope", "su", "yarn"):
        raise rope.scaling.refuse("rope_type" if "rope_type" in rope.scaling else "type", "longrope, or no scaling")
    return rope.kind != "default"


def _trained(hf: HFConfig, rope: RopeSettings) -> int:
    """Positions up to which the short factors hold; transformers' default is 4096."""
    key = "original_max_position_embeddings"
    return (rope.scaling if key in rope.scaling else hf).integer(key, min(4096, hf.integer("max_position_embeddings")))


def _n_rot(hf: HFConfig, rope: RopeSettings) -> int:
    """Values of each head that are turned."""
    key = "partial_rotary_factor"
    section = rope.scaling if key in rope.scaling else hf
    n_rot = int(head_dim(hf) * section.number(key, 1.0, above=0))
    if not 2 <= n_rot <= head_dim(hf) or n_rot % 2:
        raise section.refuse(key, f"an even number of at most {head_dim(hf)} values of each head")
    return n_rot


def _amplitude(hf: HFConfig, rope: RopeSettings) -> float:
    """Of cosines and sines: sqrt(1 + ln(factor) / ln(trained)) (transformers, `_compute_longrope_parameters`)."""
    trained = _trained(hf, rope)
    factor = rope.scaling.number("factor", hf.integer("max_position_embeddings") / trained, above=0)
    usual = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return rope.scaling.number("attention_factor", usual, above=0)


def export(file: GGUFFile, config: Config) -> dict[str, Any]:
    """config.json of the checkpoint that a phi3 file holds; a padding token is in it only if the file has one."""
    assert isinstance(config, Phi3Config)
    plain = replace(config, rope=Rope(config.head_dim, config.head_dim, config.rope.base, HALVES), rope_beyond=None)
    values = decoder_export.hf_config(file, plain, model_class="Phi3ForCausalLM", model_type="phi3")
    values |= {"partial_rotary_factor": config.rope.n_rot / config.head_dim, "sliding_window": config.window or None, "pad_token_id": None}
    if config.rope_beyond is not None:
        trained, beyond = config.rope_beyond
        long, short = beyond(trained + 1).factors, config.rope.factors
        assert long is not None and short is not None
        values["original_max_position_embeddings"] = trained
        values["rope_scaling"] = {
            "rope_type": "longrope",
            "long_factor": long.astype(float).tolist(),
            "short_factor": short.astype(float).tolist(),
            "original_max_position_embeddings": trained,
            "attention_factor": config.rope.amplitude,
        }
    return values


# --- running: what the file's tensors compute --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Phi3Config(Config):
    """Beside Config: window, the positions that a token sees, its own among them; 0: all."""

    window: int


def config(file: GGUFFile) -> Phi3Config:
    """Typed hyper-parameters of a phi3 file."""
    window = int(file.metadata.integer("phi3.attention.sliding_window", default=0, minimum=0, maximum=1 << 31))
    found = Phi3Config(**vars(read_config(file, "phi3", pairing=HALVES)), window=window)
    long, short = (frequency_divisors(file, f"rope_factors_{name}.weight", found.rope.n_rot) for name in ("long", "short"))
    if long is None or short is None:
        return found
    trained = int(file.metadata.integer("phi3.rope.scaling.original_context_length", minimum=1, maximum=1 << 31))
    amplitude = float(file.metadata.number("phi3.rope.scaling.attn_factor", default=1.0, minimum=1e-3, maximum=1e3))
    usual, stretched = (replace(found.rope, factors=factors, amplitude=amplitude) for factors in (short, long))
    return replace(found, rope=usual, rope_beyond=(trained, lambda length: stretched))


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of the forward pass and its shape, rows first; `?` marks those a file may lack."""
    found = decoder.shapes(config)
    d_q, d_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    for i in range(config.n_layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            del found[f"blk.{i}.{part}.bias?"]
        for part in ("attn_q", "attn_k", "attn_v", "ffn_gate"):
            del found[f"blk.{i}.{part}.weight"]
        found[f"blk.{i}.attn_qkv.weight"] = (d_q + 2 * d_kv, config.d_model)
        found[f"blk.{i}.ffn_up.weight"] = (2 * config.d_ff, config.d_model)
    return found


def layer(op, config: Phi3Config, w, cache, x):  # x: (n_tokens, d_model)
    d_q, d_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    h = op.rms_norm(x, w.attn_norm, config.norm_eps)
    q, k, v = op.linear(h, *w.attn_qkv.split(d_q, d_kv, d_kv))
    a = op.attention(op.rope(q, config.rope), cache.append(op.rope(k, config.rope), v), config.attention_scale, config.window)
    x = op.add(x, op.linear(a, w.attn_output))
    h = op.rms_norm(x, w.ffn_norm, config.norm_eps)
    gate, up = op.linear(h, *w.ffn_up.split(config.d_ff, config.d_ff))  # (n_tokens, d_ff)
    return op.add(x, op.linear(op.silu_mul(gate, up), w.ffn_down))


PHI3 = Architecture(
    name="phi3",
    hf_classes=("Phi3ForCausalLM",),
    rules=RULES,
    sizes=sizes,
    metadata=metadata,
    extra_tensors=factors,
    remarks=remarks,
    ignored=decoder.IGNORED,
    config=config,
    shapes=shapes,
    forward=partial(decoder.forward, layer=layer),
    hf_config=export,
)
