"""What mixtures of experts share: in every layer several feed-forward networks of which a router chooses a few for each token."""

from __future__ import annotations

from typing import Any

from ggpy.arch import decoder
from ggpy.arch.architecture import TensorRule
from ggpy.arch.config import MAX_EXPERTS, Config
from ggpy.arch.hf_config import HFConfig

_DENSE = ("blk.{i}.ffn_gate.", "blk.{i}.ffn_up.", "blk.{i}.ffn_down.")


def expert_rules(router: str, gate: str, up: str, down: str) -> tuple[TensorRule, ...]:
    """Rules of a layer's experts, by the names of their tensors in a checkpoint, `{e}` for the expert."""
    return (
        TensorRule("blk.{i}.ffn_gate_inp.weight", router, ("n_experts", "d_model")),
        TensorRule("blk.{i}.ffn_gate_exps.weight", gate, ("n_experts", "d_expert", "d_model")),
        TensorRule("blk.{i}.ffn_up_exps.weight", up, ("n_experts", "d_expert", "d_model")),
        TensorRule("blk.{i}.ffn_down_exps.weight", down, ("n_experts", "d_model", "d_expert")),
    )


def with_experts(rules: tuple[TensorRule, ...], experts: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    """The rules of a dense model with those of its experts, behind the other tensors of a layer, in place of its feed-forward network."""
    kept = [rule for rule in rules if not rule.gguf.startswith(_DENSE)]
    last = max(i for i, rule in enumerate(kept) if "{i}" in rule.gguf) + 1
    return (*kept[:last], *experts, *kept[last:])


def sizes(hf: HFConfig, d_expert: str) -> dict[str, int]:
    """The sizes that rules name; d_expert: the config's key for the width of an expert."""
    return decoder.sizes(hf) | {"n_experts": n_experts(hf), "d_expert": hf.integer(d_expert)}


def check_every_layer(hf: HFConfig) -> None:
    """Refuse any but experts in every layer."""
    if hf.integer("decoder_sparse_step", 1) != 1:
        raise hf.refuse("decoder_sparse_step", "1: experts in every layer")
    if hf.get("mlp_only_layers", []) != []:
        raise hf.refuse("mlp_only_layers", "an empty list: experts in every layer")


def n_experts(hf: HFConfig) -> int:
    """How many there are; its key was once num_experts."""
    return hf.integer("num_experts" if "num_experts" in hf else "num_local_experts", minimum=2, maximum=MAX_EXPERTS)


def metadata(hf: HFConfig, architecture: str) -> dict[str, Any]:
    """The keys of a file that tell of its experts."""
    count = n_experts(hf)
    used = hf.integer("num_experts_per_tok", maximum=count)
    return {f"{architecture}.expert_count": count, f"{architecture}.expert_used_count": used}


def shapes(config: Config, *, head_norms: bool = False) -> dict[str, tuple[int, ...]]:
    """As `decoder.shapes`; of a config with experts, these in place of each layer's feed-forward network."""
    found = decoder.shapes(config, head_norms=head_norms)
    if not config.n_experts:
        return found
    for i in range(config.n_layers):
        for part in ("ffn_gate", "ffn_up", "ffn_down"):
            del found[f"blk.{i}.{part}.weight"], found[f"blk.{i}.{part}.bias?"]
        found[f"blk.{i}.ffn_gate_inp.weight"] = (config.n_experts, config.d_model)
        found[f"blk.{i}.ffn_gate_exps.weight"] = (config.n_experts, config.d_ff, config.d_model)
        found[f"blk.{i}.ffn_up_exps.weight"] = (config.n_experts, config.d_ff, config.d_model)
        found[f"blk.{i}.ffn_down_exps.weight"] = (config.n_experts, config.d_model, config.d_ff)
    return found


def feed_forward(op, config: Config, w, h, normalised: bool = True):  # h: (n_tokens, d_model)
    """normalised: whether the probabilities of a token's experts sum up to 1."""
    routes = op.route(op.linear(h, w.ffn_gate_inp), config.n_experts_used, normalised)
    return op.experts(h, routes, w.ffn_gate_exps, w.ffn_up_exps, w.ffn_down_exps)
