"""What mixtures of experts share: in every layer several feed-forward networks of which a router chooses a few for each token."""

from __future__ import annotations

from typing import Any

from ggpy.arch import decoder
from ggpy.arch.architecture import TensorRule
from ggpy.arch.config import MAX_EXPERTS, Config
from ggpy.arch.hf_config import HFConfig


def expert_rules(router: str, gate: str, up: str, down: str) -> tuple[TensorRule, ...]:
    """Rules of a layer's experts, by the names of their tensors in a checkpoint, `{e}` for the expert."""
    return (
        TensorRule("blk.{i}.ffn_gate_inp.weight", router, ("n_experts", "d_model")),
        TensorRule("blk.{i}.ffn_gate_exps.weight", gate, ("n_experts", "d_expert", "d_model")),
        TensorRule("blk.{i}.ffn_up_exps.weight", up, ("n_experts", "d_expert", "d_model")),
        TensorRule("blk.{i}.ffn_down_exps.weight", down, ("n_experts", "d_model", "d_expert")),
    )


def sizes(hf: HFConfig, d_expert: str) -> dict[str, int]:
    """The sizes that rules name; d_expert: the config's key for the width of an expert."""
    return decoder.sizes(hf) | {"n_experts": n_experts(hf), "d_expert": hf.integer(d_expert)}


def n_experts(hf: HFConfig) -> int:
    """How many there are; its key was once num_experts."""
    return hf.integer("num_experts" if "num_experts" in hf else "num_local_experts", minimum=2, maximum=MAX_EXPERTS)


def metadata(hf: HFConfig, architecture: str) -> dict[str, Any]:
    """The keys of a file that tell of its experts."""
    count = n_experts(hf)
    used = hf.integer("num_experts_per_tok", maximum=count)
    return {f"{architecture}.expert_count": count, f"{architecture}.expert_used_count": used}


def shapes(config: Config, found: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """`found`, the tensors of a dense model, with experts in place of each layer's feed-forward network."""
    for i in range(config.n_layers):
        for part in ("ffn_gate", "ffn_up", "ffn_down"):
            del found[f"blk.{i}.{part}.weight"], found[f"blk.{i}.{part}.bias?"]
        found[f"blk.{i}.ffn_gate_inp.weight"] = (config.n_experts, config.d_model)
        found[f"blk.{i}.ffn_gate_exps.weight"] = (config.n_experts, config.d_ff, config.d_model)
        found[f"blk.{i}.ffn_up_exps.weight"] = (config.n_experts, config.d_ff, config.d_model)
        found[f"blk.{i}.ffn_down_exps.weight"] = (config.n_experts, config.d_model, config.d_ff)
    return found


def feed_forward(op, config: Config, w, h):  # h: (n_tokens, d_model)
    routes = op.route(op.linear(h, w.ffn_gate_inp), config.n_experts_used, True)
    return op.experts(h, routes, w.ffn_gate_exps, w.ffn_up_exps, w.ffn_down_exps)
