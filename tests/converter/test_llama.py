"""What the Llama architecture's checkpoints become: metadata, tensors, rotary settings, and what is decided aloud."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.arch.llama import interleave_rotary_pairs
from ggpy.converter import Report, convert, stream
from ggpy.converter.identity import model_name, size_label
from ggpy.errors import CheckpointError
from ggpy.gguf import ValueType, open_gguf

from .checkpoints import CONFIG, random_weights, safetensors_bytes, stored, write_checkpoint

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def metadata_of(tmp_path: Path, without: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """The metadata of a checkpoint whose config has `changes` and lacks `without`."""
    config = {key: value for key, value in (CONFIG | changes).items() if key not in without}
    folder = write_checkpoint(tmp_path / "Tiny-1.5K-Chat-v2", config, random_weights(CONFIG | changes))
    convert(folder, tmp_path / "out.gguf", "f16", force=True)
    with open_gguf(tmp_path / "out.gguf") as file:
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in file.metadata.items()}


def test_metadata_is_what_llama_cpp_expects(tmp_path: Path):
    write_checkpoint(tmp_path / "Tiny-1.5K-Chat-v2")
    convert(tmp_path / "Tiny-1.5K-Chat-v2", tmp_path / "out.gguf", "q8_0")
    expected = {
        "general.architecture": ("llama", ValueType.STRING),
        "general.type": ("model", ValueType.STRING),
        "general.name": ("Tiny 1.5K Chat v2", ValueType.STRING),
        "general.version": ("v2", ValueType.STRING),
        "general.finetune": ("Chat", ValueType.STRING),
        "general.basename": ("Tiny", ValueType.STRING),
        "general.size_label": ("1.5K", ValueType.STRING),
        "llama.block_count": (2, ValueType.UINT32),
        "llama.context_length": (128, ValueType.UINT32),
        "llama.embedding_length": (64, ValueType.UINT32),
        "llama.feed_forward_length": (96, ValueType.UINT32),
        "llama.attention.head_count": (4, ValueType.UINT32),
        "llama.attention.head_count_kv": (2, ValueType.UINT32),
        "llama.rope.freq_base": (10000.0, ValueType.FLOAT32),
        "llama.attention.layer_norm_rms_epsilon": (float(np.float32(1e-5)), ValueType.FLOAT32),
        "llama.vocab_size": (264, ValueType.UINT32),
        "llama.rope.dimension_count": (16, ValueType.UINT32),
        "general.file_type": (7, ValueType.UINT32),
        "general.quantization_version": (2, ValueType.UINT32),
    }
    with open_gguf(tmp_path / "out.gguf") as file:
        own = ("tokenizer.", "ggpy.")
        found = {key: (file.metadata[key], file.metadata.value_type(key)) for key in file.metadata if not key.startswith(own)}
        assert len(file.metadata["tokenizer.ggml.tokens"]) == 264
    assert found == expected


def test_other_spellings_of_the_same_config(tmp_path: Path):
    plain = metadata_of(tmp_path)
    moved = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "dtype": "float32"}
    assert metadata_of(tmp_path, ("rope_theta", "torch_dtype"), **moved) == plain
    assert metadata_of(tmp_path, ("rope_theta", "tie_word_embeddings"), head_dim=None, rope_scaling=None) == plain
    assert metadata_of(tmp_path, architectures=["MistralForCausalLM"], sliding_window=None, head_dim=16) == plain
    assert metadata_of(tmp_path, ("num_key_value_heads",), num_key_value_heads=4)["llama.attention.head_count_kv"] == 4


def test_heads_wider_than_the_model_say_so(tmp_path: Path):
    found = metadata_of(tmp_path, head_dim=32)
    assert found["llama.attention.key_length"] == found["llama.attention.value_length"] == found["llama.rope.dimension_count"] == 32


def test_rotary_scaling_in_metadata(tmp_path: Path):
    linear = metadata_of(tmp_path, rope_scaling={"type": "linear", "factor": 4})
    assert (linear["llama.rope.scaling.type"], linear["llama.rope.scaling.factor"]) == ("linear", 4.0)
    yarn = metadata_of(tmp_path, rope_scaling={"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "beta_fast": 32})
    assert (yarn["llama.rope.scaling.type"], yarn["llama.rope.scaling.original_context_length"]) == ("yarn", 64)
    assert yarn["llama.rope.scaling.yarn_beta_fast"] == 32.0


def llama3_inverse_frequencies(theta: float, head_dim: int) -> np.ndarray:
    """The scaled frequencies, pair by pair, as transformers' documentation tells it."""
    scaled = []
    for i in range(0, head_dim, 2):
        frequency = theta ** (-i / head_dim)
        wavelength = 2 * math.pi / frequency
        longest, shortest = 64 / LLAMA3["low_freq_factor"], 64 / LLAMA3["high_freq_factor"]
        if wavelength < shortest:
            scaled.append(frequency)
        elif wavelength > longest:
            scaled.append(frequency / LLAMA3["factor"])
        else:
            smooth = (64 / wavelength - LLAMA3["low_freq_factor"]) / (LLAMA3["high_freq_factor"] - LLAMA3["low_freq_factor"])
            scaled.append((1 - smooth) * frequency / LLAMA3["factor"] + smooth * frequency)
    return np.array(scaled)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_llama_3_scaling_becomes_a_tensor(tmp_path: Path, key: str):
    settings = LLAMA3 | ({"rope_theta": 500.0} if key == "rope_parameters" else {})
    folder = write_checkpoint(tmp_path / "model", CONFIG | {key: settings, "rope_theta": 500.0})
    convert(folder, tmp_path / "out.gguf", "q8_0")
    with open_gguf(tmp_path / "out.gguf") as file:
        tensor = file.tensors["rope_freqs.weight"]
        factors = tensor.dequantize()
        assert tensor.format.name == "F32" and file.metadata["llama.rope.freq_base"] == 500.0
    frequencies = 500.0 ** (-np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(frequencies / factors, llama3_inverse_frequencies(500.0, 16), rtol=1e-6)
    assert factors[0] == 1 and factors[-1] == 8 and len(set(factors)) > 2


def rotated(x: np.ndarray, position: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """One head, (head_dim,), with each of its `pairs` turned by the angle of its place."""
    turned = x.copy()
    for k, (i, j) in enumerate(pairs):
        angle = position * 10000.0 ** (-2 * k / len(x))
        turned[i], turned[j] = x[i] * math.cos(angle) - x[j] * math.sin(angle), x[i] * math.sin(angle) + x[j] * math.cos(angle)
    return turned


def test_interleaved_rows_give_the_same_attention_scores():
    """Rotating halves of the checkpoint's q and k, or neighbours of the converted ones, gives the same products."""
    rng, head_dim, n_heads = np.random.default_rng(1), 8, 3
    w_q, w_k, x = rng.standard_normal((n_heads * head_dim, 5)), rng.standard_normal((n_heads * head_dim, 5)), rng.standard_normal((2, 5))
    halves = [(i, i + head_dim // 2) for i in range(head_dim // 2)]
    neighbours = [(2 * i, 2 * i + 1) for i in range(head_dim // 2)]
    for head in range(n_heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        q, k = w_q[rows] @ x[0], w_k[rows] @ x[1]
        expected = rotated(q, 7, halves) @ rotated(k, 3, halves)
        q, k = interleave_rotary_pairs(w_q, n_heads)[rows] @ x[0], interleave_rotary_pairs(w_k, n_heads)[rows] @ x[1]
        assert rotated(q, 7, neighbours) @ rotated(k, 3, neighbours) == pytest.approx(expected)


def convert_weights(
    tmp_path: Path, weights: dict[str, np.ndarray], strict: bool = False, **changes: Any
) -> tuple[Report, dict[str, np.ndarray]]:
    folder = write_checkpoint(tmp_path / "model", CONFIG | changes, weights)
    report = convert(folder, tmp_path / "out.gguf", "f32", strict=strict, force=True)
    with open_gguf(tmp_path / "out.gguf") as file:
        return report, {name: tensor.dequantize() for name, tensor in file.tensors.items()}


def test_every_tensor_arrives_in_order(tmp_path: Path):
    weights = random_weights(CONFIG)
    report, found = convert_weights(tmp_path, weights)
    layer = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    names = [f"blk.{i}.{name}.weight" for i in range(2) for name in layer]
    assert list(found) == ["token_embd.weight", *names, "output_norm.weight", "output.weight"]
    assert report.warnings == ()
    np.testing.assert_array_equal(found["output.weight"], weights["lm_head.weight"])
    np.testing.assert_array_equal(found["blk.1.ffn_down.weight"], weights["model.layers.1.mlp.down_proj.weight"])
    q, k = weights["model.layers.1.self_attn.q_proj.weight"], weights["model.layers.1.self_attn.k_proj.weight"]
    for head in range(4):
        for i in range(8):
            np.testing.assert_array_equal(found["blk.1.attn_q.weight"][16 * head + 2 * i], q[16 * head + i])
            np.testing.assert_array_equal(found["blk.1.attn_q.weight"][16 * head + 2 * i + 1], q[16 * head + 8 + i])
    np.testing.assert_array_equal(found["blk.1.attn_k.weight"], interleave_rotary_pairs(k, 2))


@pytest.mark.parametrize("rows", [1, 5, 16, 23])
def test_rows_arrive_in_order_in_pieces_that_cut_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int):
    weights = random_weights(CONFIG)
    _, whole = convert_weights(tmp_path, weights)
    monkeypatch.setattr(stream, "CHUNK_VALUES", 64 * rows)
    _, found = convert_weights(tmp_path, weights)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)


def test_biases_come_along_where_the_config_switches_them_on(tmp_path: Path):
    weights = random_weights(CONFIG)
    biases = {name.replace(".weight", ".bias"): values[:, 0].copy() for name, values in weights.items() if "_proj" in name}
    report, found = convert_weights(tmp_path, weights | biases, attention_bias=True, mlp_bias=True)
    assert report.warnings == () and sum(name.endswith(".bias") for name in found) == 14
    bias = weights["model.layers.0.self_attn.q_proj.weight"][:, 0]
    np.testing.assert_array_equal(found["blk.0.attn_q.bias"], interleave_rotary_pairs(bias, 4))
    report, found = convert_weights(tmp_path, weights | biases)
    assert not any(name.endswith(".bias") for name in found) and "14 tensors have no place" in report.warnings[0]
    with pytest.raises(CheckpointError, match=r"8 tensors are missing.*q_proj\.bias"):
        convert_weights(tmp_path, weights, attention_bias=True)


def test_tied_embeddings_are_stored_once(tmp_path: Path):
    weights = random_weights(CONFIG | {"tie_word_embeddings": True})
    report, found = convert_weights(tmp_path, weights, tie_word_embeddings=True)
    assert "output.weight" not in found and report.warnings == ()
    twin = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    report, found = convert_weights(tmp_path, twin, tie_word_embeddings=True)
    assert "output.weight" not in found and report.warnings == ()


def test_ambiguous_ties_are_decided_aloud(tmp_path: Path):
    weights = random_weights(CONFIG)
    report, found = convert_weights(tmp_path, weights, tie_word_embeddings=True)
    assert "output.weight" not in found and "differs from model.embed_tokens.weight" in report.warnings[0]
    del weights["lm_head.weight"]
    report, found = convert_weights(tmp_path, weights)
    assert "output.weight" not in found and "lm_head.weight is missing" in report.warnings[0]
    with pytest.raises(CheckpointError, match="strict"):
        convert_weights(tmp_path, weights, strict=True)


def test_left_over_tensors_are_named_and_buffers_ignored(tmp_path: Path):
    weights = random_weights(CONFIG) | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    assert convert_weights(tmp_path, weights)[0].warnings == ()
    weights |= {f"visual.{i}.weight": np.ones(1, np.float32) for i in range(7)}
    report, _ = convert_weights(tmp_path, weights)
    assert report.warnings == (
        "7 tensors have no place in a llama model and are left out: " + ", ".join(f"visual.{i}.weight" for i in range(5)) + ", …",
    )
    with pytest.raises(CheckpointError, match="7 tensors have no place"):
        convert_weights(tmp_path, weights, strict=True)


def test_missing_tensors_are_counted_and_named(tmp_path: Path):
    weights = {name: values for name, values in random_weights(CONFIG).items() if "mlp" not in name}
    with pytest.raises(CheckpointError, match=r"6 tensors are missing.*model\.layers\.0\.mlp\.gate_proj\.weight.*…"):
        convert_weights(tmp_path, weights)


def test_what_a_file_cannot_say_is_said(tmp_path: Path):
    report, _ = convert_weights(tmp_path, random_weights(CONFIG), sliding_window=32)
    assert "sliding_window 32" in report.warnings[0]
    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.metadata["llama.context_length"] == 32
    report, _ = convert_weights(tmp_path, random_weights(CONFIG), rope_scaling={"type": "dynamic", "factor": 2.0})
    assert "llama.rope.scaling.dynamic_factor, which llama.cpp does not read" in report.warnings[0]
    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.metadata["llama.rope.scaling.dynamic_factor"] == 2.0 and "llama.rope.scaling.type" not in file.metadata


# what of the config is wrong -> what the message names
BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "no class": ({"architectures": None}, "architectures is missing, expected"),
    "class no list": ({"architectures": "LlamaForCausalLM"}, "expected a list of strings"),
    "class unknown": ({"architectures": ["GPT2LMHeadModel"]}, "expected one of LlamaForCausalLM"),
    "class with escapes": ({"architectures": ["\x1b[31m"]}, r"\x1b"),
    "layers missing": ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
    "layers negative": ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    "layers zero": ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    "layers huge": ({"num_hidden_layers": 2**32}, "num_hidden_layers is 4294967296"),
    "layers a string": ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
    "layers a float": ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0"),
    "layers true": ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    "layers a list": ({"num_hidden_layers": [2]}, "num_hidden_layers is [2]"),
    "more layers than tensors": ({"num_hidden_layers": 4000}, "35982 tensors are missing"),
    "heads do not divide": ({"num_attention_heads": 6}, "hidden_size is 64"),
    "key heads do not divide": ({"num_key_value_heads": 3}, "num_key_value_heads is 3"),
    "more key heads than heads": ({"num_key_value_heads": 8}, "num_key_value_heads is 8"),
    "odd head": ({"head_dim": 15}, "head_dim is 15"),
    "epsilon zero": ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
    "epsilon negative": ({"rms_norm_eps": -1e-5}, "rms_norm_eps is -1e-05"),
    "epsilon infinite": ({"rms_norm_eps": 1e999}, "rms_norm_eps"),
    "theta zero": ({"rope_theta": 0.0}, "rope_theta is 0.0"),
    "theta a huge integer": ({"rope_theta": 10**400}, "rope_theta is 1000"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "partial rotation": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    "scaling no object": ({"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
    "scaling unknown": ({"rope_scaling": {"type": "longrope"}}, "type is 'longrope'"),
    "scaling without factor": ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
    "llama3 incomplete": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
    "llama3 factors equal": ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor is 1.0"),
    "vocabulary": ({"vocab_size": 300}, "model.embed_tokens.weight has shape [264, 64], expected [300, 64]"),
    "width": ({"intermediate_size": 97}, "expected [97, 64]"),
    "tied no bool": ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
    "quantized": ({"quantization_config": {"quant_method": "hqq"}}, "quant_method is 'hqq', expected one of gptq, "),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_CONFIGS)
def test_senseless_configs_are_refused_by_key(tmp_path: Path, fault: str):
    changes, message = BAD_CONFIGS[fault]
    folder = write_checkpoint(tmp_path / "model")
    write_config(folder, CONFIG | changes)
    with pytest.raises(CheckpointError) as caught:
        convert(folder, tmp_path / "out.gguf")
    assert message in str(caught.value) and str(folder) in str(caught.value) and str(caught.value).isprintable()
    assert not (tmp_path / "out.gguf").exists()


def write_config(folder: Path, config: dict[str, Any]) -> None:
    import json

    (folder / "config.json").write_text(json.dumps(config).replace("Infinity", "1e999"), encoding="utf-8")


@pytest.mark.parametrize("dtype", ["F64", "I32"])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: str):
    folder = write_checkpoint(tmp_path / "model")
    entries = {name: stored(values, dtype if "k_proj" in name else "F32") for name, values in random_weights(CONFIG).items()}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(entries))
    with pytest.raises(CheckpointError, match=rf"k_proj\.weight is {dtype}, expected one of F32, F16, BF16"):
        convert(folder, tmp_path / "out.gguf")


def test_names_of_models(tmp_path: Path):
    snapshot = tmp_path / "models--owner--Tiny-7B" / "snapshots" / ("0123456789abcdef" * 3)[:40]
    snapshot.mkdir(parents=True)
    assert model_name(snapshot) == "Tiny-7B"
    assert [size_label(n) for n in (260_032, 134_515_008, 1_235_814_400, 8_030_261_248, 70_553_706_496)] == [
        "260K",
        "135M",
        "1.2B",
        "8.0B",
        "71B",
    ]


def test_card_and_recommended_sampling(tmp_path: Path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n", encoding="utf-8")
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 40, "top_p": 0.9, "eos_token_id": 2}', encoding="utf-8")
    convert(folder, tmp_path / "out.gguf", "f16")
    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.metadata["general.license"] == "apache-2.0"
        assert file.metadata["general.sampling.top_k"] == 40
        assert file.metadata["general.sampling.temp"] == pytest.approx(0.6)
    (folder / "generation_config.json").write_text('{"top_k": "many"}', encoding="utf-8")
    report = convert(folder, tmp_path / "out.gguf", "f16", force=True)
    assert "recommended sampling settings left out" in report.warnings[0] and "'many'" in report.warnings[0]
