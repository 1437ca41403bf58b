"""Mixtral: Llama with a mixture of experts for each feed-forward network. Its files are `llama` files that have experts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ggpy.arch import llama, mixture
from ggpy.arch.decoder import LAYER
from ggpy.arch.decoder_export import mixture_hf_config
from ggpy.arch.hf_config import HFConfig

_EXPERT = LAYER + "block_sparse_moe.experts.{e}."
_EXPERTS = mixture.expert_rules(LAYER + "block_sparse_moe.gate.weight", _EXPERT + "w1.weight", _EXPERT + "w3.weight", _EXPERT + "w2.weight")


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `llama.*` keys of a config.json."""
    return llama.metadata(hf) | mixture.metadata(hf, "llama")


MIXTRAL = replace(
    llama.LLAMA,
    hf_classes=("MixtralForCausalLM",),
    rules=mixture.with_experts(llama.RULES, _EXPERTS),
    sizes=partial(mixture.sizes, d_expert="intermediate_size"),
    metadata=metadata,
    hf_config=partial(mixture_hf_config, model_class="MixtralForCausalLM", model_type="mixtral", count_key="num_local_experts"),
)
