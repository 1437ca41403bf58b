"""Qwen3's mixtures of experts: Qwen3's graph with experts for each feed-forward network."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ggpy.arch import decoder, mixture, qwen3
from ggpy.arch.config import Config, read_config
from ggpy.arch.decoder import LAYER, sliding_window
from ggpy.arch.decoder_export import ATTENTION_BIAS, mixture_hf_config
from ggpy.arch.hf_config import HFConfig
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import HALVES

_EXPERT = LAYER + "mlp.experts.{e}."
_EXPERTS = mixture.expert_rules(
    LAYER + "mlp.gate.weight", _EXPERT + "gate_proj.weight", _EXPERT + "up_proj.weight", _EXPERT + "down_proj.weight"
)


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `qwen3moe.*` keys of a config.json. In such a file every layer has experts, and what a router gives them sums up to 1."""
    if not hf.boolean("norm_topk_prob", False):
        raise hf.refuse("norm_topk_prob", "true: probabilities of a token's experts that sum up to 1")
    mixture.check_every_layer(hf)
    return (
        decoder.metadata(hf, "qwen3moe", sliding_window(hf, unless_told=False))
        | mixture.metadata(hf, "qwen3moe")
        | {"qwen3moe.expert_feed_forward_length": hf.integer("moe_intermediate_size")}
    )


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a qwen3moe file cannot say."""
    return decoder.remarks(hf, "qwen3moe", sliding_window(hf, unless_told=False))


def config(file: GGUFFile) -> Config:
    """Typed hyper-parameters of a qwen3moe file."""
    return read_config(file, "qwen3moe", pairing=HALVES)


QWEN3MOE = replace(
    qwen3.QWEN3,
    name="qwen3moe",
    hf_classes=("Qwen3MoeForCausalLM",),
    rules=mixture.with_experts(qwen3.RULES, _EXPERTS),
    sizes=partial(mixture.sizes, d_expert="moe_intermediate_size"),
    metadata=metadata,
    remarks=remarks,
    config=config,
    hf_config=partial(
        mixture_hf_config,
        model_class="Qwen3MoeForCausalLM",
        model_type="qwen3_moe",
        width_key="moe_intermediate_size",
        biases=ATTENTION_BIAS,
        fixed={"norm_topk_prob": True},
    ),
)
