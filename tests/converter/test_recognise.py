"""Models by other names: taken for what they are when nothing but the name differs, else refused with what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.arch import HF_CLASSES
from ggpy.converter import Report, convert
from ggpy.errors import CheckpointError
from ggpy.gguf import open_gguf

from .checkpoints import CONFIG, random_weights, write_checkpoint

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def biases(*of: str) -> dict[str, np.ndarray]:
    """Random biases of each layer's projections."""
    rng = np.random.default_rng(1)
    rows = {name: values.shape[0] for name, values in random_weights(CONFIG).items() if name.split(".")[-2] in of}
    return {name.replace(".weight", ".bias"): rng.standard_normal(n, np.float32) for name, n in rows.items()}


def head_norms() -> dict[str, np.ndarray]:
    return {f"model.layers.{i}.self_attn.{part}_norm.weight": np.full(16, 1 + i / 8, np.float32) for i in range(2) for part in "qk"}


def converted(tmp_path: Path, name: str, weights: dict[str, np.ndarray], **changes: Any) -> tuple[Report, dict[str, Any]]:
    """The report, and all that is in the file but its name."""
    folder = write_checkpoint(tmp_path / name, CONFIG | changes | {"architectures": [name]}, weights)
    report = convert(folder, tmp_path / f"{name}.gguf", "f32")
    with open_gguf(report.path) as file:
        found = {key: file.metadata.raw(key) for key in file.metadata if not key.startswith(("general.name", "general.basename", "ggpy."))}
        return report, found | {name: tensor.data.tobytes() for name, tensor in file.tensors.items()}


# class -> (tensors beside Llama's, config beside it, the class it is taken for, and what that one has beside it)
RENAMED: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], str, dict[str, Any]]] = {
    "AquilaForCausalLM": ({}, {"model_type": "aquila"}, "LlamaForCausalLM", {}),
    "XverseForCausalLM": ({}, {"max_tokenizer_truncation": 100, "rope_theta": None}, "LlamaForCausalLM", {}),
    "InternLMForCausalLM": (biases(*PROJECTIONS), {"bias": True}, "LlamaForCausalLM", {"attention_bias": True}),
    "InternLM3ForCausalLM": ({}, {"qkv_bias": False, "bias": False, "head_dim": 16}, "LlamaForCausalLM", {}),
    "SeedOssForCausalLM": (
        biases(*PROJECTIONS[:3]),
        {"attention_bias": True, "attention_out_bias": False, "residual_dropout": 0.1},
        "Qwen2ForCausalLM",
        {},
    ),
    "RenamedForCausalLM": (head_norms(), {"use_qk_norm": True}, "Qwen3ForCausalLM", {}),
    "NeutralForCausalLM": (
        {},
        {"residual_multiplier": 1.0, "attention_multiplier": 0.25, "clip_qkv": None, "logits_scaling": 1, "use_parallel_residual": False,
         "n_layer": 2, "kv_channels": 16, "layer_norm_epsilon": 1e-5, "layer_types": ["full_attention"] * 2, "rotary_pct": 1.0,
         "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}},
        "LlamaForCausalLM",
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RENAMED)
def test_a_model_by_another_name_is_converted_with_a_line_of_notice(tmp_path: Path, name: str):
    more, changes, like, told = RENAMED[name]
    weights = random_weights(CONFIG) | more
    report, found = converted(tmp_path, name, weights, **changes)
    plain, expected = converted(tmp_path, like, weights, **told)
    assert found == expected and found["general.architecture"].endswith(HF_CLASSES[like].name.encode())
    assert plain.warnings == () and len(report.warnings) == 1
    assert name in report.warnings[0] and like in report.warnings[0] and "taken for one" in report.warnings[0]
    assert ("rope_theta is not given, expected 10000" in report.warnings[0]) == (name == "XverseForCausalLM")
    assert report.certificate and report.certificate.passed
    with pytest.raises(CheckpointError, match="is not known by name"):
        convert(tmp_path / name, tmp_path / "strict.gguf", "f32", strict=True)


def test_code_of_its_own_is_not_run(tmp_path: Path):
    changes = {"auto_map": {"AutoModelForCausalLM": "modeling_other.OtherForCausalLM"}}
    report, _ = converted(tmp_path, "OtherForCausalLM", random_weights(CONFIG), **changes)
    assert len(report.warnings) == 1 and "auto_map" in report.warnings[0]


# what would change numbers -> (tensors that come, tensors that go, config, what the message says)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
UNLIKE: dict[str, tuple[dict[str, np.ndarray], tuple[str, ...], dict[str, Any], list[str]]] = {
    "factors": (
        {},
        (),
        {"embedding_multiplier": 12.0, "attention_multiplier": 0.0078125, "residual_multiplier": 0.22, "logits_scaling": 8.0},
        ["embedding_multiplier is 12.0; attention_multiplier is 0.0078125; residual_multiplier is 0.22; logits_scaling is 8.0"],
    ),
    "factors of another kind": ({}, (), {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256},
                                ["scale_emb is 12; scale_depth is 1.4; dim_model_base is 256"]),
    "clipped": ({}, (), {"clip_qkv": 8.0}, ["LlamaForCausalLM, but: clip_qkv is 8.0"]),
    "parallel": ({}, (), {"use_parallel_residual": True}, ["use_parallel_residual is True"]),
    "capped": ({}, (), {"final_logit_softcapping": 30.0}, ["final_logit_softcapping is 30.0"]),
    "layers without positions": ({}, (), {"no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
                                 ["no_rope_layers is [1, 0]; no_rope_layer_interval is 2"]),
    "partly rotated": ({}, (), {"partial_rotary_factor": 0.25}, ["partial_rotary_factor is 0.25, expected 1"]),
    "partly rotated, below": ({}, (), {"rope_theta": None, "rope_parameters": ROPE | {"partial_rotary_factor": 0.25}},
                              ["rope_parameters.partial_rotary_factor is 0.25"]),
    "attention cooled": ({}, (), {"rope_parameters": ROPE | {"llama_4_scaling_beta": 0.1}}, ["llama_4_scaling_beta is 0.1"]),
    "two bases": ({}, (), {"rope_theta": 5000.0, "rope_parameters": ROPE}, ["rope_theta is 5000.0"]),
    "activation": ({}, (), {"hidden_act": "relu2"}, ["hidden_act is 'relu2', expected silu"]),
    "windows in some layers": ({}, (), {"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types is ['full_attention', 's"]),
    "looped": ({}, (), {"num_loops": 2}, ["num_loops is 2"]),
    "masked": ({}, (), {"mask_token_id": 5}, ["mask_token_id is 5"]),
    "unheard of": ({}, (), {"phase_of_the_moon": {"\x1b": 1}}, ["phase_of_the_moon is {'\\x1b': 1}"]),
    "off, yet unheard of": ({}, (), {"use_something": False}, ["use_something is False"]),
    "not centred, but scaled": ({}, (), {"rms_norm_eps": None, "layer_norm_eps": 1e-5},
                                ["rms_norm_eps is missing", "layer_norm_eps is 1e-05"]),
    "norms with biases": ({f"model.layers.{i}.input_layernorm.bias": np.zeros(64, np.float32) for i in range(2)}, (), {},
                          ["2 tensors without a place: model.layers.0.input_layernorm.bias, model.layers.1.input_layernorm.bias"]),
    "one norm for two": ({}, ("post_attention_layernorm",), {}, ["2 tensors missing: model.layers.0.post_attention_layernorm.weight"]),
    "no gate": ({}, ("gate_proj",), {}, ["2 tensors missing: model.layers.0.mlp.gate_proj.weight"]),
    "biases of q and o": (biases("q_proj", "o_proj"), (), {}, ["4 tensors missing: model.layers.0.self_attn.k_proj.bias"]),
    "norms of whole vectors": ({f"model.layers.{i}.self_attn.{x}_norm.weight": np.ones(64 if x == "q" else 32, np.float32)
                                for i in range(2) for x in "qk"}, (), {}, ["4 tensors without a place: model.layers.0.self_attn"]),
    "fewer layers than it says": ({}, (), {"num_hidden_layers": 3}, ["9 tensors missing: model.layers.2.input_layernorm.weight"]),
}  # fmt: skip


@pytest.mark.parametrize("difference", UNLIKE)
def test_what_differs_is_listed_and_refused(tmp_path: Path, difference: str):
    more, without, changes, expected = UNLIKE[difference]
    weights = {name: values for name, values in random_weights(CONFIG).items() if not any(part in name for part in without)} | more
    folder = write_checkpoint(tmp_path / "model", CONFIG | {"architectures": ["OtherForCausalLM"]} | changes, weights)
    with pytest.raises(CheckpointError) as caught:
        convert(folder, tmp_path / "out.gguf", "f32")
    message = str(caught.value)
    assert "architectures is ['OtherForCausalLM'], expected one of LlamaForCausalLM" in message and message.isprintable()
    assert "one that differs in name alone; nearest is " in message
    for text in expected:
        assert text in message
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("name", ["HeliumForCausalLM", "Ernie4_5ForCausalLM", "MaincoderForCausalLM"])
def test_lookalikes_are_refused_by_name(tmp_path: Path, name: str):
    folder = write_checkpoint(tmp_path / "model", CONFIG | {"architectures": [name]})
    with pytest.raises(CheckpointError, match=rf"architectures is \['{name}'\], expected one of .*: it (rotates neighbouring|norms heads)"):
        convert(folder, tmp_path / "out.gguf", "f32")


@pytest.mark.parametrize("name", ["OtherModel", "OtherForSequenceClassification", "OtherLMHeadModel"])
def test_other_uses_of_the_same_tensors_are_refused(tmp_path: Path, name: str):
    folder = write_checkpoint(tmp_path / "model", CONFIG | {"architectures": [name]})
    with pytest.raises(CheckpointError, match=rf"architectures is \['{name}'\], expected one of (?!.*nearest)"):
        convert(folder, tmp_path / "out.gguf", "f32")


def test_quite_another_model_has_nothing_near(tmp_path: Path):
    weights = {f"transformer.h.{i}.{part}.weight": np.ones(4, np.float32) for i in range(9) for part in ("attn", "mlp")}
    folder = write_checkpoint(tmp_path / "model", CONFIG | {"architectures": ["OtherForCausalLM"]}, weights)
    with pytest.raises(CheckpointError, match=r"expected one of (?!.*nearest)"):
        convert(folder, tmp_path / "out.gguf", "f32")
    config = CONFIG | {"architectures": ["OtherForCausalLM"], "num_hidden_layers": 4096, "num_experts": 4096, "num_local_experts": 4096}
    folder = write_checkpoint(tmp_path / "huge", config, weights)
    with pytest.raises(CheckpointError, match=r"expected one of (?!.*nearest)"):
        convert(folder, tmp_path / "out.gguf", "f32")
