"""Qwen2 and Qwen2.5: Llama's graph with biases on q, k and v, and rotary halves left as Hugging Face has them."""

from __future__ import annotations

from functools import partial
from typing import Any

from ggpy.arch import decoder
from ggpy.arch.architecture import Architecture, TensorRule
from ggpy.arch.config import Config, read_config
from ggpy.arch.decoder import EMBEDDING, LAYER, OUTPUT, OUTPUT_NORM, sliding_window, with_bias
from ggpy.arch.decoder_export import hf_config
from ggpy.arch.hf_config import HFConfig
from ggpy.arch.llama import LLAMA
from ggpy.gguf import GGUFFile
from ggpy.runtime.rotary import HALVES

RULES = (
    EMBEDDING,
    TensorRule("blk.{i}.attn_norm.weight", LAYER + "input_layernorm.weight", ("d_model",)),
    *with_bias(TensorRule("blk.{i}.attn_q.weight", LAYER + "self_attn.q_proj.weight", ("d_q", "d_model"))),
    *with_bias(TensorRule("blk.{i}.attn_k.weight", LAYER + "self_attn.k_proj.weight", ("d_kv", "d_model"))),
    *with_bias(TensorRule("blk.{i}.attn_v.weight", LAYER + "self_attn.v_proj.weight", ("d_kv", "d_model"))),
    TensorRule("blk.{i}.attn_output.weight", LAYER + "self_attn.o_proj.weight", ("d_model", "d_q")),
    TensorRule("blk.{i}.ffn_norm.weight", LAYER + "post_attention_layernorm.weight", ("d_model",)),
    TensorRule("blk.{i}.ffn_gate.weight", LAYER + "mlp.gate_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_up.weight", LAYER + "mlp.up_proj.weight", ("d_ff", "d_model")),
    TensorRule("blk.{i}.ffn_down.weight", LAYER + "mlp.down_proj.weight", ("d_model", "d_ff")),
    OUTPUT_NORM,
    OUTPUT,
)


def metadata(hf: HFConfig) -> dict[str, Any]:
    """The `qwen2.*` keys of a config.json."""
    return decoder.metadata(hf, "qwen2", sliding_window(hf, unless_told=False))


def remarks(hf: HFConfig) -> list[str]:
    """What of a config.json a qwen2 file cannot say."""
    return decoder.remarks(hf, "qwen2", sliding_window(hf, unless_told=False))


def config(file: GGUFFile) -> Config:
    """Typed hyper-parameters of a qwen2 file."""
    return read_config(file, "qwen2", pairing=HALVES)


QWEN2 = Architecture(
    name="qwen2",
    hf_classes=("Qwen2ForCausalLM",),
    rules=RULES,
    sizes=decoder.sizes,
    metadata=metadata,
    extra_tensors=decoder.frequency_factors,
    remarks=remarks,
    ignored=decoder.IGNORED,
    attn_v_boost=partial(decoder.attn_v_boost, architecture="qwen2"),
    hf_config=partial(hf_config, model_class="Qwen2ForCausalLM", model_type="qwen2"),
    config=config,
    shapes=decoder.shapes,
    forward=LLAMA.forward,
)
