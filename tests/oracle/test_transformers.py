"""The float checkpoint, run by transformers, has the logits of its F32 file run by ggpy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy

from .tiny_checkpoints import write_checkpoint

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [4.0 + i for i in range(8)],
        "short_factor": [1.0 + i / 8 for i in range(8)], "original_max_position_embeddings": 64}  # fmt: skip
GEMMA: dict[str, Any] = {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 9}
TYPES = ["full_attention", "sliding_attention", "sliding_attention"]
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
}
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]  # the peers' own deprecations


def transformers_logits(checkpoint: Path, ids: list[int]) -> np.ndarray:
    """float32 (len(ids), n_vocab), computed in float32."""
    reason = "is not installed (pip install -e '.[oracle]')"
    torch = pytest.importorskip("torch", reason=f"torch {reason}")
    transformers = pytest.importorskip("transformers", reason=f"transformers {reason}")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def check(checkpoint: Path, gguf: Path, context: int | None = 64) -> None:
    """ggpy keeps keys and values in float16, transformers in float32: that is the difference left. context: None for the text's length."""
    report = ggpy.convert(checkpoint, gguf, type="f32")
    assert report.certificate and report.certificate.kl < 1e-4
    model = ggpy.load(gguf, context=context or 64)
    ids = model.tokenize(TEXT, bos=model.tokenizer.add_bos)
    if context is None:
        model = ggpy.load(gguf, context=len(ids))
    ours, theirs = model.logits(ids), transformers_logits(checkpoint, ids)
    assert np.abs(ours - theirs).max() < 0.01 * theirs.std()
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, yarn": ("Llama", {"rope_parameters": YARN}),
    "llama, yarn with a factor of its own": ("Llama", {"rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 16.0}}),
    "mistral": ("Mistral", {"head_dim": 24, "sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2, tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "gemma": ("Gemma", {"head_dim": 24}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma2, scaled by another number": ("Gemma2", GEMMA | {"query_pre_attn_scalar": 40, "layer_types": TYPES}),
    "gemma3": ("Gemma3Text", GEMMA | {"sliding_window_pattern": 2}),
    "gemma3, positions scaled": ("Gemma3Text", GEMMA | {"layer_types": TYPES, "rope_parameters": GEMMA_ROPE}),
    "gemma3, no windows": ("Gemma3Text", GEMMA | {"sliding_window_pattern": 1, "final_logit_softcapping": 5.0}),
    "qwen2, by another name": ("SeedOss", {"head_dim": 24, "attention_bias": True, "attention_out_bias": False}),
    "llama, by another name": ("Cwm", {"head_dim": 24, "layer_types": ["full_attention"] * 3, "rope_parameters": YARN}),
    "qwen3, biased": ("Qwen3", {"head_dim": 32, "attention_bias": True}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "qwen2moe": (
        "Qwen2Moe",
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
    ),
    "qwen3moe": (
        "Qwen3Moe",
        {"head_dim": 24, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True},
    ),
    "phi3": ("Phi3", {"pad_token_id": 0}),
    "phi3, windowed": ("Phi3", {"pad_token_id": 0, "sliding_window": 9}),
    "phi3, partly rotated": ("Phi3", {"pad_token_id": 0, "partial_rotary_factor": 0.5, "tie_word_embeddings": True}),
    "phi3, longrope": ("Phi3", {"pad_token_id": 0, "original_max_position_embeddings": 64, "rope_parameters": LONG}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tiny_checkpoints_of_every_architecture(name: str, tmp_path: Path):
    kind, changes = ARCHITECTURES[name]
    check(write_checkpoint(tmp_path / "checkpoint", kind, **changes), tmp_path / "model.gguf")


def test_a_context_beyond_the_trained_one_has_the_long_factors(tmp_path: Path):
    """transformers takes them for texts that are longer, ggpy, as llama.cpp, for contexts that are."""
    rope = LONG | {"original_max_position_embeddings": 16, "factor": 2.0}
    changes = {"pad_token_id": 0, "original_max_position_embeddings": 16, "rope_parameters": rope}
    check(write_checkpoint(tmp_path / "checkpoint", "Phi3", **changes), tmp_path / "model.gguf")


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
def test_dynamic_scaling_is_that_of_a_text_as_long_as_the_context(kind: str, tmp_path: Path):
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", kind, max_position_embeddings=16, rope_parameters=rope)
    check(checkpoint, tmp_path / "model.gguf", context=None)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_model_of_one_that_sees(prefix: str, tmp_path: Path):
    """What it becomes does not depend on the model around it."""
    safetensors = pytest.importorskip("safetensors.numpy")
    whole, alone = tmp_path / "whole", write_checkpoint(tmp_path / "alone", "Gemma3Text", **GEMMA)
    shutil.copytree(alone, whole)
    config = json.loads((alone / "config.json").read_text(encoding="utf-8"))
    around = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "hidden_size": 3, "vision_config": {}}
    (whole / "config.json").write_text(json.dumps(around | {"text_config": config}), encoding="utf-8")
    tensors = safetensors.load_file(alone / "model.safetensors")
    renamed = {prefix + name.removeprefix("model."): values for name, values in tensors.items()}
    renamed |= {f"{prefix.partition('language_model')[0]}vision_tower.patches.weight": np.zeros((2, 2), np.float32)}
    safetensors.save_file(renamed, whole / "model.safetensors")
    check(alone, tmp_path / "alone.gguf")
    report = ggpy.convert(whole, tmp_path / "whole.gguf", type="f32")
    assert report.certificate and any("1 tensors of its other parts are left out" in line for line in report.warnings)
    with ggpy.open_gguf(tmp_path / "alone.gguf") as one, ggpy.open_gguf(tmp_path / "whole.gguf") as other:
        assert list(one.tensors) == list(other.tensors)
        assert all(np.array_equal(t.dequantize(), other.tensors[name].dequantize()) for name, t in one.tensors.items())
        keys = [key for key in one.metadata if key.startswith(("gemma3.", "tokenizer."))]
        assert keys and all(one.metadata.raw(key) == other.metadata.raw(key) for key in keys)


def test_stories260k(shared: Path, tmp_path: Path):
    check(shared / "models" / "stories260K", tmp_path / "model.gguf")


def test_the_demo_checkpoint(tmp_path: Path):
    check(Path(ggpy.__file__).parent / "demo", tmp_path / "model.gguf")


@pytest.mark.real_model
@pytest.mark.slow
def test_smollm2(smollm2_checkpoint: Path, tmp_path: Path):
    check(smollm2_checkpoint, tmp_path / "model.gguf")
