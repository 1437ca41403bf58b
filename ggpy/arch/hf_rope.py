"""Rotary position settings of Hugging Face configs, in both spellings, and what GGUF stores of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ggpy.arch.hf_config import HFConfig
from ggpy.runtime.rotary import yarn_amplitude

THETA_DEFAULT = 10000.0  # LlamaConfig's own, for configs older than the key


@dataclass(frozen=True)
class RopeSettings:
    """theta: base of the frequencies; kind: how they are scaled for long contexts, "default" for not at all; scaling: its parameters."""

    theta: float
    kind: str
    scaling: HFConfig


def rope_settings(config: HFConfig, theta: float = THETA_DEFAULT) -> RopeSettings:
    """Read `rope_theta` with `rope_scaling`, or `rope_parameters`, which holds both since transformers 5.

    theta: that of configs without the key. `rope_type` was once spelled `type`. Raises CheckpointError for values of the wrong type or
    range.
    """
    scaling = config.section("rope_parameters" if "rope_parameters" in config else "rope_scaling")
    theta = (scaling if "rope_theta" in scaling else config).number("rope_theta", theta, above=0)
    kind = scaling.string("rope_type", None) or scaling.string("type", "default")
    return RopeSettings(theta, kind.lower(), scaling)


def scaling_metadata(settings: RopeSettings, context_length: int) -> dict[str, Any]:
    """The `rope.scaling.*` keys, without the architecture's prefix, for the kinds GGUF expresses by metadata.

    Raises CheckpointError for kinds that need tensors or code of their own. "dynamic" scales only past the trained context; its key is
    ggpy's own, and to readers that do not know it the file has no scaling, which is equal within that context.
    """
    scaling = settings.scaling
    match settings.kind:
        case "default" | "none" | "llama3":
            return {}
        case "dynamic":
            return {"rope.scaling.dynamic_factor": scaling.number("factor", above=0)}
        case "linear":
            return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.number("factor", above=0)}
        case "yarn":
            return _yarn_metadata(scaling, context_length)
        case _:
            key = "rope_type" if "rope_type" in scaling else "type"
            raise scaling.refuse(key, "one of default, linear, dynamic, yarn, llama3")


def _yarn_metadata(scaling: HFConfig, context_length: int) -> dict[str, Any]:
    """YaRN's keys. A file has its amplitude as a multiple of 0.1 ln(factor) + 1, a config.json as a whole."""
    for key, only in (("truncate", True), ("mscale", None), ("mscale_all_dim", None)):
        if key in scaling and scaling[key] is not only:
            raise scaling.refuse(key, "true" if only else "nothing: GGUF has no key for it in this architecture")
    factor = scaling.number("factor", above=0)
    values: dict[str, Any] = {"rope.scaling.type": "yarn", "rope.scaling.factor": factor}
    values["rope.scaling.original_context_length"] = scaling.integer("original_max_position_embeddings", context_length)
    for key in ("beta_fast", "beta_slow"):
        if key in scaling:
            values[f"rope.scaling.yarn_{key}"] = scaling.number(key, above=0)
    if "attention_factor" in scaling:
        values["rope.scaling.attn_factor"] = scaling.number("attention_factor", above=0) / yarn_amplitude(factor)
    return values


def llama3_frequency_factors(settings: RopeSettings, head_dim: int) -> np.ndarray:
    """By how much Llama 3 slows each rotary pair down: float32 (head_dim / 2,), the content of `rope_freqs.weight`.

    Pairs with short wavelengths keep their frequency, long ones are divided by `factor`, and those between pass smoothly
    over. Formula: transformers, `_compute_llama3_parameters`. Raises CheckpointError for missing or senseless parameters.
    """
    scaling = settings.scaling
    factor = scaling.number("factor", above=0)
    low, high = scaling.number("low_freq_factor", above=0), scaling.number("high_freq_factor", above=0)
    if high <= low:
        raise scaling.refuse("high_freq_factor", f"more than low_freq_factor, {low:g}")
    context = scaling.integer("original_max_position_embeddings")
    wavelength = 2 * math.pi * settings.theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    # 0 at the longest wavelength that is scaled in full, 1 at the shortest that is scaled at all
    smooth = np.clip((context / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
