"""Gemma 2: Gemma's graph with norms behind attention and feed-forward too, attention within a window in every other layer, scores and
logits soft-capped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ggpy.arch import gemma
from ggpy.arch.architecture import Architecture
from ggpy.arch.config import read_config
from ggpy.arch.gemma import GemmaConfig
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import rope_settings
from ggpy.errors import ModelError
from ggpy.gguf import GGUFFile
from ggpy.gguf.types import ValueType
from ggpy.runtime.rotary import HALVES, Rope

PERIOD = 2  # of every so many layers the last sees everything
LAYERS_27B = 46  # whose scores are scaled by d_model / n_heads, not by head_dim: files have no key for it, readers go by the layers
WINDOW = 4096  # of files without the key
SCORE_CAP, LOGIT_CAP = 50.0, 30.0

# --- conversion ---------------------------------------------------------------------------------------------------------


def local_layers(hf: HFConfig, period: int) -> list[bool]:
    """Whether each layer's attention is within the window: as `layer_types` says, else all but every `period`-th."""
    n_layers = hf.integer("num_hidden_layers", maximum=4096)
    types = hf.strings("layer_types", [])
    if not types:
        return [(i + 1) % period != 0 for i in range(n_layers)]
    if len(types) != n_layers or not set(types) <= {"sliding_attention", "full_attention"}:
        raise hf.refuse("layer_types", f"sliding_attention or full_attention for each of {n_layers} layers")
    return [kind == "sliding_attention" for kind in types]


def pattern(is_local: Sequence[bool], period: int) -> dict[str, Any]:
    """The key that says which layers are local, where they are not those that readers expect: the period as a number, else each layer."""
    if list(is_local) == periodic(len(is_local), period):
        return {}
    periods = [n for n in range(1, len(is_local) + 1) if list(is_local) == periodic(len(is_local), n)]
    return {"attention.sliding_window_pattern": periods[0] if periods else list(is_local)}


def periodic(n_layers: int, period: int) -> list[bool]:
    """All local but the last of every `period`; 0: all."""
    return [period == 0 or i % period < period - 1 for i in range(n_layers)]


def score_scale(hf: HFConfig, layers_27b: int) -> dict[str, Any]:
    """The key of the scores' factor, where it is not the one that readers take."""
    scale = hf.number("query_pre_attn_scalar", 256.0, above=0) ** -0.5
    n_heads, n_layers = hf.integer("num_attention_heads"), hf.integer("num_hidden_layers")
    usual = _usual_scale(n_layers == layers_27b, hf.integer("hidden_size"), n_heads, gemma.head_dim(hf))
    return {} if math.isclose(scale, usual, rel_tol=1e-6) else {"attention.scale": scale}


def scale_remarks(hf: HFConfig, architecture: str, layers_27b: int) -> list[str]:
    """What of a config.json is in a file but not read by all."""
    scale = score_scale(hf, layers_27b).get("attention.scale")
    if scale is None:
        return []
    return [f"query_pre_attn_scalar is not head_dim: written as {architecture}.attention.scale {scale:.6g}, which llama.cpp does not read"]


def _usual_scale(is_27b: bool, d_model: int, n_heads: int, head_dim: int) -> float:
    return (d_model // n_heads if is_27b else head_dim) ** -0.5


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `gemma2.*` keys of a config.json."""
    values = gemma.shared_metadata(hf, rope_settings(hf))
    values |= score_scale(hf, LAYERS_27B)
    values["attn_logit_softcapping"] = hf.number("attn_logit_softcapping", SCORE_CAP, above=0)
    values["final_logit_softcapping"] = hf.number("final_logit_softcapping", LOGIT_CAP, above=0)
    values["attention.sliding_window"] = hf.integer("sliding_window", WINDOW)
    values |= pattern(local_layers(hf, PERIOD), PERIOD)
    return {f"gemma2.{key}": value for key, value in values.items()}


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a gemma2 file says only to some readers."""
    return scale_remarks(hf, "gemma2", LAYERS_27B)


# --- running ------------------------------------------------------------------------------------------------------------


def windowed_config(
    file: GGUFFile,
    architecture: str,
    *,
    period: int,
    layers_27b: int,
    window: int,
    score_cap: float,
    logit_cap: float,
    local_base: float | None,
) -> GemmaConfig:
    """Typed hyper-parameters; the keywords are what files without the keys mean.

    local_base: theta of local layers, which then scale no positions; None: they are turned as all others.
    """
    meta = file.metadata
    base = read_config(file, architecture, pairing=HALVES)
    seen = int(meta.integer(f"{architecture}.attention.sliding_window", default=window, minimum=0, maximum=1 << 31))
    is_local = _is_local(file, f"{architecture}.attention.sliding_window_pattern", base.n_layers, period)
    theta, scale = (base.rope.base, base.rope.scale) if local_base is None else (local_base, 1.0)
    theta = float(meta.number(f"{architecture}.rope.freq_base_swa", default=theta, minimum=1e-3, maximum=1e12))
    usual = _usual_scale(base.n_layers == layers_27b, base.d_model, base.n_heads, base.head_dim)
    return GemmaConfig(
        **vars(base),
        is_local=is_local if seen else (False,) * base.n_layers,
        window=seen,
        local_rope=Rope(base.head_dim, base.rope.n_rot, theta, HALVES, scale),
        score_scale=float(meta.number(f"{architecture}.attention.scale", default=usual, minimum=1e-6, maximum=1e6)),
        score_cap=float(meta.number(f"{architecture}.attn_logit_softcapping", default=score_cap, minimum=0, maximum=1e6)),
        logit_cap=float(meta.number(f"{architecture}.final_logit_softcapping", default=logit_cap, minimum=0, maximum=1e6)),
    )


def _is_local(file: GGUFFile, key: str, n_layers: int, period: int) -> tuple[bool, ...]:
    meta = file.metadata
    if key not in meta or meta.value_type(key) is not ValueType.ARRAY:
        return tuple(periodic(n_layers, int(meta.integer(key, default=period, minimum=0, maximum=1 << 16))))
    flags = list(meta[key]) if meta.element_type(key) is ValueType.BOOL else [bool(n) for n in meta.integers(key)]
    if len(flags) != n_layers:
        raise ModelError(f"{file.path}: {key} has {len(flags)} values, expected one for each of {n_layers} layers")
    return tuple(flags)


def config(file: GGUFFile) -> GemmaConfig:
    """Typed hyper-parameters of a gemma2 file."""
    return windowed_config(file, "gemma2", period=PERIOD, layers_27b=LAYERS_27B, window=WINDOW, score_cap=SCORE_CAP, logit_cap=LOGIT_CAP,
                           local_base=None)  # fmt: skip


GEMMA2 = Architecture(
    name="gemma2",
    hf_classes=("Gemma2ForCausalLM",),
    rules=gemma.POST_NORMED_RULES,
    sizes=gemma.sizes,
    metadata=metadata,
    extra_tensors=lambda hf: {},
    remarks=remarks,
    ignored=gemma.IGNORED,
    by_structure=False,  # embeddings are scaled, norms have a 1 added
    config=config,
    shapes=gemma.post_normed_shapes,
    forward=gemma.post_normed_forward,
)
