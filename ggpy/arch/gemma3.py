"""Gemma 3, the text model: Gemma 2's graph without caps, heads of q and k normed, and five of six layers local with a rotary base of their
own."""

from __future__ import annotations

from functools import partial
from typing import Any

from ggpy.arch import gemma, gemma2
from ggpy.arch.architecture import Architecture, TensorRule, TextPart
from ggpy.arch.decoder import LAYER
from ggpy.arch.gemma import GemmaConfig
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.hf_rope import RopeSettings, rope_settings
from ggpy.gguf import GGUFFile

PERIOD = 6  # of every so many layers the last sees everything
LAYERS_27B = 62  # as with Gemma 2
GLOBAL_THETA, LOCAL_THETA = 1_000_000.0, 10_000.0

HEAD_NORMS = {
    "blk.{i}.attn_q.weight": gemma.norm("blk.{i}.attn_q_norm", LAYER + "self_attn.q_norm", "d_head"),
    "blk.{i}.attn_k.weight": gemma.norm("blk.{i}.attn_k_norm", LAYER + "self_attn.k_norm", "d_head"),
}


def _with_head_norms(rules: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    return tuple(r for rule in rules for r in ((rule, HEAD_NORMS[rule.gguf]) if rule.gguf in HEAD_NORMS else (rule,)))


def rotary(hf: HFConfig) -> tuple[RopeSettings, float]:
    """(settings of global layers, theta of local ones), in both spellings: one section for each kind of layer, or keys of their own."""
    sections = hf.section("rope_parameters")
    if "full_attention" not in sections and "sliding_attention" not in sections:
        return rope_settings(hf, GLOBAL_THETA), hf.number("rope_local_base_freq", LOCAL_THETA, above=0)
    local = sections.section("sliding_attention")
    if local.string("rope_type", "default") != "default":
        raise local.refuse("rope_type", "default: GGUF scales positions of global layers only")
    everywhere = HFConfig({"rope_parameters": sections["full_attention"]} if "full_attention" in sections else {}, sections.where)
    return rope_settings(everywhere, GLOBAL_THETA), local.number("rope_theta", LOCAL_THETA, above=0)


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `gemma3.*` keys of a config.json."""
    if "attn_logit_softcapping" in hf:
        raise hf.refuse("attn_logit_softcapping", "null: GGUF has no place for it in this architecture")
    rope, local_theta = rotary(hf)
    values = gemma.shared_metadata(hf, rope)
    values |= gemma2.score_scale(hf, LAYERS_27B)
    values["rope.freq_base_swa"] = local_theta
    if "final_logit_softcapping" in hf:
        values["final_logit_softcapping"] = hf.number("final_logit_softcapping", above=0)
    is_local = gemma2.local_layers(hf, hf.integer("sliding_window_pattern", PERIOD))
    if any(is_local):
        values["attention.sliding_window"] = hf.integer("sliding_window", 4096)
        values |= gemma2.pattern(is_local, PERIOD)
    return {f"gemma3.{key}": value for key, value in values.items()}


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a gemma3 file says only to some readers."""
    return gemma2.scale_remarks(hf, "gemma3", LAYERS_27B)


def config(file: GGUFFile) -> GemmaConfig:
    """Typed hyper-parameters of a gemma3 file."""
    return gemma2.windowed_config(file, "gemma3", period=PERIOD, layers_27b=LAYERS_27B, window=0, score_cap=0.0, logit_cap=0.0,
                                  local_base=LOCAL_THETA)  # fmt: skip


WITH_VISION = TextPart(
    hf_class="Gemma3ForCausalLM",
    section="text_config",
    defaults={"vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 131_072},
    prefixes={"language_model.": "", "model.language_model.": "model."},
    others=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
)

GEMMA3 = Architecture(
    name="gemma3",
    hf_classes=("Gemma3ForCausalLM",),
    text_parts={"Gemma3ForConditionalGeneration": WITH_VISION},
    rules=_with_head_norms(gemma.POST_NORMED_RULES),
    sizes=gemma.sizes,
    metadata=metadata,
    extra_tensors=lambda hf: {},
    remarks=remarks,
    ignored=gemma.IGNORED,
    by_structure=False,  # embeddings are scaled, norms have a 1 added
    config=config,
    shapes=partial(gemma.post_normed_shapes, head_norms=True),
    forward=gemma.post_normed_forward,
)
