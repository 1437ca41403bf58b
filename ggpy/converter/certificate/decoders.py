"""Llama, Mistral, Mixtral, Qwen2, Qwen3 and Phi-3 as transformers computes them (`modeling_llama.py` and its likes)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ggpy.converter.certificate.oracle import (
    Array,
    Parameters,
    attend,
    in_stored_order,
    neighbouring_pairs,
    rms_norm,
    rotary_angles,
    rotate_half,
    silu,
)
from ggpy.converter.certificate.probe import Probe
from ggpy.converter.certificate.walk import EMBEDDING, HEAD, ROTATED, State


def _decoder(
    p: Parameters,
    probe: Probe,
    *,
    qkv_bias: bool | str = False,
    other_bias: bool | str = False,
    head_norms: bool = False,
    paired: bool = False,
    fused: bool = False,
    windowed: bool = False,
    experts: tuple[str, str, str, str] | None = None,
    shared_expert: bool = False,
) -> Iterator[State]:
    """The states of a checkpoint, see `Oracle`.

    qkv_bias, other_bias: of the attention's products, always or by a key of config.json. head_norms: of each head of q and k. paired:
    GGUF keeps rotary pairs as neighbours. fused: one product for q, k and v, one for gate and up.
    windowed: attention within config.json's window.
    experts: the module that has them, and their own for gate, up and down. shared_expert: another beside them, with a gate of its own; then
    what the chosen ones weigh does not sum up to 1.
    """
    n_heads, eps = p.config["num_attention_heads"], p.config.get("rms_norm_eps", 1e-6)
    n_kv_heads = p.config.get("num_key_value_heads") or n_heads
    head_dim = p.config.get("head_dim") or p.config["hidden_size"] // n_heads
    bias_qkv, bias_o = (bool(p.config.get(bias)) if isinstance(bias, str) else bias for bias in (qkv_bias, other_bias))
    mlp_bias = bool(p.config.get("mlp_bias"))
    window = p.config.get("sliding_window") if windowed else None
    angles, amplitude = rotary_angles(p.config, head_dim, probe.positions)
    ordered = neighbouring_pairs if paired else in_stored_order

    def heads(x: Array, n: int) -> Array:
        return x.reshape(len(x), n, head_dim)

    x = p.embedding("model.embed_tokens", probe.ids)
    yield State(EMBEDDING, x)
    for i in range(p.config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        h = rms_norm(x, p.vector(layer + "input_layernorm.weight"), eps)
        if fused:
            q, k, v = np.split(p.linear(h, layer + "self_attn.qkv_proj"), [n_heads * head_dim, (n_heads + n_kv_heads) * head_dim], -1)
        else:
            q, k, v = (p.linear(h, f"{layer}self_attn.{part}_proj", bias=bias_qkv) for part in "qkv")
        q, k = heads(q, n_heads), heads(k, n_kv_heads)
        stages = {"attn_norm": h, "attn_q": ordered(q), "attn_k": ordered(k), "attn_v": v}
        turned = "attn_q", "attn_k"
        if head_norms:
            q, k = (rms_norm(x, p.vector(f"{layer}self_attn.{x_norm}.weight"), eps) for x, x_norm in ((q, "q_norm"), (k, "k_norm")))
            turned = "attn_q_norm", "attn_k_norm"
            stages |= {turned[0]: ordered(q), turned[1]: ordered(k)}
        turned_q, turned_k = (rotate_half(x, angles, amplitude) for x in (q, k))
        attended = attend(turned_q, turned_k, heads(v, n_kv_heads), probe, head_dim**-0.5, window)
        o = p.linear(attended, layer + "self_attn.o_proj", bias=bias_o)
        x = x + o
        h2 = rms_norm(x, p.vector(layer + "post_attention_layernorm.weight"), eps)
        if experts:
            logits, down = _mixture(p, h2, layer + experts[0], experts[1:], not shared_expert)
            if shared_expert:
                parts, shared = _shared_expert(p, h2, layer + experts[0])
                stages |= parts
                down = down + shared
            x = x + down
            stages |= {turned[0] + ROTATED: ordered(turned_q), turned[1] + ROTATED: ordered(turned_k), "attn_output": o,
                       "ffn_norm": h2, "ffn_gate_inp": logits}  # fmt: skip
            yield State(f"blk.{i}", x, stages)
            continue
        if fused:
            gate, up = np.split(p.linear(h2, layer + "mlp.gate_up_proj"), 2, -1)
        else:
            gate, up = (p.linear(h2, f"{layer}mlp.{part}_proj", bias=mlp_bias) for part in ("gate", "up"))
        down = p.linear(silu(gate) * up, layer + "mlp.down_proj", bias=mlp_bias)
        x = x + down
        stages |= {turned[0] + ROTATED: ordered(turned_q), turned[1] + ROTATED: ordered(turned_k), "attn_output": o,
                   "ffn_norm": h2, "ffn_gate": gate, "ffn_up": up, "ffn_down": down}  # fmt: skip
        yield State(f"blk.{i}", x, stages)
    x = rms_norm(x, p.vector("model.norm.weight"), eps)[probe.kept]
    tied = p.config.get("tie_word_embeddings", False) or not p.has("lm_head.weight")
    yield State(HEAD, p.linear(x, "model.embed_tokens" if tied else "lm_head"))


def _shared_expert(p: Parameters, x: Array, module: str) -> tuple[dict[str, Array], Array]:
    """(its stages, what it gives): sigmoid(gate x) times the feed-forward network's result."""
    gate, up = (p.linear(x, f"{module}.shared_expert.{part}_proj") for part in ("gate", "up"))
    down, share = p.linear(silu(gate) * up, f"{module}.shared_expert.down_proj"), p.linear(x, f"{module}.shared_expert_gate")
    stages = {"ffn_gate_shexp": gate, "ffn_up_shexp": up, "ffn_down_shexp": down, "ffn_gate_inp_shexp": share}
    return stages, (down / (1 + np.exp(-share))).astype(np.float32)


def _mixture(p: Parameters, x: Array, module: str, parts: tuple[str, ...], normalised: bool) -> tuple[Array, Array]:
    """(logits of the experts, their weighted sum). normalised: whether what the chosen ones weigh sums up to 1."""
    logits = p.linear(x, f"{module}.gate")
    likely = np.exp(logits - logits.max(-1, keepdims=True))
    chosen = np.argsort(-likely, axis=-1, kind="stable")[:, : p.config["num_experts_per_tok"]]
    weights = np.take_along_axis(likely, chosen, -1)
    weights /= (weights if normalised else likely).sum(-1, keepdims=True)
    total = np.zeros_like(x)
    for number in np.unique(chosen):
        tokens, ranks = np.nonzero(chosen == number)
        gate, up = (p.linear(x[tokens], f"{module}.experts.{number}.{part}") for part in parts[:2])
        total[tokens] += weights[tokens, ranks, None] * p.linear(silu(gate) * up, f"{module}.experts.{number}.{parts[2]}")
    return logits, total


llama = partial(_decoder, qkv_bias="attention_bias", other_bias="attention_bias", paired=True)
qwen2 = partial(_decoder, qkv_bias=True)
qwen3 = partial(_decoder, qkv_bias="attention_bias", other_bias="attention_bias", head_norms=True)
qwen2_moe = partial(_decoder, qkv_bias=True, experts=("mlp", "gate_proj", "up_proj", "down_proj"), shared_expert=True)
mixtral = partial(_decoder, paired=True, experts=("block_sparse_moe", "w1", "w3", "w2"))
qwen3_moe = partial(
    _decoder,
    qkv_bias="attention_bias",
    other_bias="attention_bias",
    head_norms=True,
    experts=("mlp", "gate_proj", "up_proj", "down_proj"),
)
phi3 = partial(_decoder, fused=True, windowed=True)
