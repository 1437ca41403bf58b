"""The way back: what config.json says of the file of a decoder-only model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ggpy.arch.config import Config
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import RopeSettings, llama3_frequency_factors
from ggpy.errors import ModelError
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import yarn_amplitude

ATTENTION_BIAS = {"attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output")}
MLP_BIAS = {"mlp_bias": ("ffn_gate", "ffn_up", "ffn_down")}
_LLAMA3_CONTEXTS = (8192, 4096, 2048, 16384)


def hf_config(
    file: GGUFFile, config: Config, *, model_class: str, model_type: str, biases: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> dict[str, Any]:
    """config.json of the checkpoint that a file holds; ModelError for what `model_class` cannot be.

    biases: key of config.json -> parts of a layer whose biases it turns on.
    """
    values: dict[str, Any] = {
        "architectures": [model_class],
        "model_type": model_type,
        "vocab_size": config.n_vocab,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": _shortest(config.norm_eps),
        "rope_theta": _shortest(config.rope.base),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **{key: _has_biases(file, config, parts, model_class) for key, parts in biases.items()},
    }
    if config.rope.n_rot != config.head_dim:
        raise ModelError(f"{file.path}: rope.dimension_count is {config.rope.n_rot}; {model_class} turns whole heads, {config.head_dim}")
    if config.rope.scale != 1:
        values["rope_scaling"] = {"rope_type": "linear", "factor": _shortest(1 / config.rope.scale)}
    if file.metadata.string(f"{_prefix(file)}.rope.scaling.type", default="none") == "yarn":
        values["rope_scaling"] = _yarn_scaling(file)
    elif (dynamic := f"{_prefix(file)}.rope.scaling.dynamic_factor") in file.metadata:
        values["rope_scaling"] = {"rope_type": "dynamic", "factor": _shortest(float(file.metadata.number(dynamic)))}
    elif config.rope.factors is not None:
        values["rope_scaling"] = _llama3_scaling(file, config)
    return values


def mixture_hf_config(
    file: GGUFFile,
    config: Config,
    *,
    model_class: str,
    model_type: str,
    count_key: str = "num_experts",
    width_key: str | None = None,
    biases: Mapping[str, Sequence[str]] = MappingProxyType({}),
    fixed: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """As `hf_config`, of a file with experts. count_key: of their number; width_key: of their width where intermediate_size is not that.

    fixed: keys whose values such files imply.
    """
    values = hf_config(file, config, model_class=model_class, model_type=model_type, biases=biases)
    values |= {count_key: config.n_experts, "num_experts_per_tok": config.n_experts_used, **fixed}
    if width_key:
        values[width_key] = config.d_ff
        values["intermediate_size"] = int(file.metadata.integer(f"{_prefix(file)}.feed_forward_length", minimum=1))
    return values


def _prefix(file: GGUFFile) -> str:
    """What the keys of the model's own metadata begin with."""
    return file.metadata.string("general.architecture")


def _shortest(value: float) -> float:
    """The number of fewest digits that is the same float32: the file has 1e-05 as 9.99999974737875e-06."""
    return float(str(np.float32(value)))


def _has_biases(file: GGUFFile, config: Config, parts: Sequence[str], model_class: str) -> bool:
    names = [f"blk.{i}.{part}.bias" for i in range(config.n_layers) for part in parts]
    found = sum(name in file.tensors for name in names)
    if found not in (0, len(names)):
        raise ModelError(f"{file.path}: has {found} of the biases of {', '.join(parts)}; {model_class} has {len(names)} or none")
    return bool(found)


def _yarn_scaling(file: GGUFFile) -> dict[str, Any]:
    """YaRN's parameters, as they stand in the file."""
    meta, prefix = file.metadata, f"{_prefix(file)}.rope.scaling."
    factor = _shortest(float(meta.number(prefix + "factor")))
    scaling: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": int(meta.integer(prefix + "original_context_length")),
    }
    for key in ("beta_fast", "beta_slow"):
        if f"{prefix}yarn_{key}" in meta:
            scaling[key] = _shortest(float(meta.number(f"{prefix}yarn_{key}")))
    if prefix + "attn_factor" in meta:
        scaling["attention_factor"] = _shortest(float(meta.number(prefix + "attn_factor")) * yarn_amplitude(factor))
    return scaling


def _llama3_scaling(file: GGUFFile, config: Config) -> dict[str, Any]:
    """The parameters of Llama 3's scaling that give the file's factors."""
    factors = config.rope.factors
    assert factors is not None
    for context in _LLAMA3_CONTEXTS:
        scaling = {
            "rope_type": "llama3",
            "factor": _shortest(float(factors.max())),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": context,
        }
        settings = RopeSettings(_shortest(config.rope.base), "llama3", HFConfig(scaling, str(file.path)))
        if np.allclose(llama3_frequency_factors(settings, config.head_dim), factors, rtol=1e-5):
            return scaling
    raise ModelError(f"{file.path}: rope_freqs.weight holds factors that none of the known parameters of Llama 3's scaling give")
