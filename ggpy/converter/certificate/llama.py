"""LlamaForCausalLM and MistralForCausalLM as transformers computes them (`modeling_llama.py`)."""

from __future__ import annotations

from collections.abc import Iterator

from ggpy.converter.certificate.oracle import (
    Array,
    Parameters,
    attend,
    neighbouring_pairs,
    rms_norm,
    rotary_frequencies,
    rotate_half,
    silu,
)
from ggpy.converter.certificate.probe import Probe
from ggpy.converter.certificate.walk import EMBEDDING, HEAD, ROTATED, State


def llama(p: Parameters, probe: Probe) -> Iterator[State]:
    """The states of a checkpoint of this kind, see `Oracle`."""
    n_heads, eps = p.config["num_attention_heads"], p.config.get("rms_norm_eps", 1e-6)
    n_kv_heads = p.config.get("num_key_value_heads") or n_heads
    head_dim = p.config.get("head_dim") or p.config["hidden_size"] // n_heads
    attention_bias, mlp_bias = (bool(p.config.get(key)) for key in ("attention_bias", "mlp_bias"))
    angles = probe.positions[:, None] * rotary_frequencies(p.config, head_dim)

    def heads(x: Array, n: int) -> Array:
        return x.reshape(len(x), n, head_dim)

    x = p.embedding("model.embed_tokens", probe.ids)
    yield State(EMBEDDING, x)
    for i in range(p.config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        h = rms_norm(x, p.vector(layer + "input_layernorm.weight"), eps)
        q = heads(p.linear(h, layer + "self_attn.q_proj", bias=attention_bias), n_heads)
        k = heads(p.linear(h, layer + "self_attn.k_proj", bias=attention_bias), n_kv_heads)
        v = p.linear(h, layer + "self_attn.v_proj", bias=attention_bias)
        turned_q, turned_k = rotate_half(q, angles), rotate_half(k, angles)
        attended = attend(turned_q, turned_k, heads(v, n_kv_heads), probe, head_dim**-0.5)
        o = p.linear(attended, layer + "self_attn.o_proj", bias=attention_bias)
        x = x + o
        h2 = rms_norm(x, p.vector(layer + "post_attention_layernorm.weight"), eps)
        gate = p.linear(h2, layer + "mlp.gate_proj", bias=mlp_bias)
        up = p.linear(h2, layer + "mlp.up_proj", bias=mlp_bias)
        down = p.linear(silu(gate) * up, layer + "mlp.down_proj", bias=mlp_bias)
        x = x + down
        stages = {"attn_norm": h, "attn_q": neighbouring_pairs(q), "attn_k": neighbouring_pairs(k), "attn_v": v, "attn_output": o,
                  "attn_q" + ROTATED: neighbouring_pairs(turned_q), "attn_k" + ROTATED: neighbouring_pairs(turned_k),
                  "ffn_norm": h2, "ffn_gate": gate, "ffn_up": up, "ffn_down": down}  # fmt: skip
        yield State(f"blk.{i}", x, stages)
    x = rms_norm(x, p.vector("model.norm.weight"), eps)[probe.kept]
    tied = p.config.get("tie_word_embeddings", False) or not p.has("lm_head.weight")
    yield State(HEAD, p.linear(x, "model.embed_tokens" if tied else "lm_head"))
