"""Gemma, Gemma 2 and the text model of Gemma 3 as transformers computes them (`modeling_gemma.py` and its likes)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ggpy.converter.certificate.oracle import Array, Parameters, attend, in_stored_order, rms_norm, rotary_angles, rotate_half
from ggpy.converter.certificate.probe import Probe
from ggpy.converter.certificate.walk import EMBEDDING, HEAD, ROTATED, State


def gelu_tanh(x: Array) -> Array:
    """torch.nn.functional.gelu(x, approximate="tanh")."""
    return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)))).astype(np.float32)


def _gemma(p: Parameters, probe: Probe, *, generation: int) -> Iterator[State]:
    """The states of a checkpoint, see `Oracle`. generation: 1, 2 or 3."""
    c = p.config
    eps, head_dim, n_layers = c.get("rms_norm_eps", 1e-6), c.get("head_dim", 256), c["num_hidden_layers"]
    n_heads = c["num_attention_heads"]
    n_kv_heads = c.get("num_key_value_heads") or n_heads
    caps = {2: (50.0, 30.0)}.get(generation, (None, None))
    score_cap, logit_cap = (
        c.get(key, usual) for key, usual in zip(("attn_logit_softcapping", "final_logit_softcapping"), caps, strict=True)
    )
    scale = (head_dim if generation == 1 else c.get("query_pre_attn_scalar", 256)) ** -0.5
    kinds = _kinds(c, generation)
    rotary = {kind: rotary_angles(_rotary(c, kind, generation), head_dim, probe.positions)[0] for kind in set(kinds)}

    def norm(x: Array, name: str) -> Array:
        return rms_norm(x, 1 + p.vector(f"{name}.weight").astype(np.float32), eps)

    def heads(x: Array, n: int) -> Array:
        return x.reshape(len(x), n, head_dim)

    x = p.embedding("model.embed_tokens", probe.ids) * np.float32(c["hidden_size"] ** 0.5)
    yield State(EMBEDDING, x)
    for i, kind in zip(range(n_layers), kinds, strict=True):
        layer, window = f"model.layers.{i}.", c.get("sliding_window", 4096) if kind == "sliding_attention" else None
        h = norm(x, layer + "input_layernorm")
        q, k = heads(p.linear(h, layer + "self_attn.q_proj"), n_heads), heads(p.linear(h, layer + "self_attn.k_proj"), n_kv_heads)
        v = p.linear(h, layer + "self_attn.v_proj")
        stages = {"attn_norm": h, "attn_q": in_stored_order(q), "attn_k": in_stored_order(k), "attn_v": v}
        names = "attn_q", "attn_k"
        if generation == 3:
            names = "attn_q_norm", "attn_k_norm"
            q, k = norm(q, layer + "self_attn.q_norm"), norm(k, layer + "self_attn.k_norm")
            stages |= {names[0]: in_stored_order(q), names[1]: in_stored_order(k)}
        q, k = (rotate_half(x, rotary[kind]) for x in (q, k))
        stages |= {names[0] + ROTATED: in_stored_order(q), names[1] + ROTATED: in_stored_order(k)}
        o = p.linear(attend(q, k, heads(v, n_kv_heads), probe, scale, window, score_cap), layer + "self_attn.o_proj")
        stages["attn_output"] = o
        before = "post_attention_layernorm"
        if generation > 1:
            before = "pre_feedforward_layernorm"
            stages["post_attention_norm"] = o = norm(o, layer + "post_attention_layernorm")
        x = x + o
        h = norm(x, layer + before)
        gate, up = p.linear(h, layer + "mlp.gate_proj"), p.linear(h, layer + "mlp.up_proj")
        down = p.linear(gelu_tanh(gate) * up, layer + "mlp.down_proj")
        stages |= {"ffn_norm": h, "ffn_gate": gate, "ffn_up": up, "ffn_down": down}
        if generation > 1:
            stages["post_ffw_norm"] = down = norm(down, layer + "post_feedforward_layernorm")
        x = x + down
        yield State(f"blk.{i}", x, stages)
    logits = p.linear(norm(x, "model.norm")[probe.kept], "model.embed_tokens")
    yield State(HEAD, logits if not logit_cap else (np.tanh(logits / logit_cap) * logit_cap).astype(np.float32))


def _kinds(config: Mapping[str, Any], generation: int) -> list[str]:
    """Of each layer, "sliding_attention" or "full_attention"."""
    n_layers = config["num_hidden_layers"]
    if generation == 1:
        return ["full_attention"] * n_layers
    period = 2 if generation == 2 else config.get("sliding_window_pattern", 6)
    return config.get("layer_types") or ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(n_layers)]


def _rotary(config: Mapping[str, Any], kind: str, generation: int) -> dict[str, Any]:
    """The config as `rotary_angles` reads it, for layers of that kind."""
    if generation < 3:
        return dict(config)
    theta = 1e6 if kind == "full_attention" else 1e4
    sections = config.get("rope_parameters") or {}
    if "full_attention" in sections or "sliding_attention" in sections:
        return {"rope_parameters": {"rope_theta": theta, **(sections.get(kind) or {})}}
    if kind == "full_attention":
        return {"rope_theta": theta, **config}
    return {"rope_theta": config.get("rope_local_base_freq") or theta}


gemma, gemma2, gemma3 = (partial(_gemma, generation=generation) for generation in (1, 2, 3))
