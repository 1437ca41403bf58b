"""GGUF files as Hugging Face directories: the way there and back changes no byte, and nothing is left of what fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.arch import HF_CLASSES
from ggpy.arch.hf_config import HFConfig
from ggpy.cli.export import main
from ggpy.converter import convert
from ggpy.converter import export as module
from ggpy.converter.checkpoint import Checkpoint
from ggpy.converter.export import export
from ggpy.converter.rules import expand, names_of, stored_shape
from ggpy.converter.vocabulary_proof import proof_texts
from ggpy.errors import CheckpointError, GGPyError, ModelError
from ggpy.gguf import open_gguf
from ggpy.tokenizer.tokenizer import load_tokenizer
from tests.runtime.tiny import write_llama, write_llama_with_nan

from .checkpoints import CONFIG, random_weights, write_checkpoint
from .tokenizers_on_disk import sentencepiece_model


def bytes_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with Checkpoint(folder) as checkpoint:
        return {n: (t.dtype, t.shape, t.file.read(t.offset, t.n_bytes).tobytes()) for n, t in checkpoint.tensors.items()}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, "F32"),
        ({"tie_word_embeddings": True}, "BF16"),
        ({"head_dim": 32, "rope_theta": 500000.0, "rope_scaling": LLAMA3, "max_position_embeddings": 131072}, "F16"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "attention_bias": True, "mlp_bias": True}, "F32"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.5}}, "F32"),
    ],
)
def test_there_and_back_changes_no_byte(tmp_path: Path, changes: dict[str, Any], dtype: str):
    config = CONFIG | changes
    weights = random_weights(config)
    if config.get("attention_bias"):
        rng = np.random.default_rng(1)
        matrices = [name for name in weights if "_proj" in name]
        weights |= {name.replace(".weight", ".bias"): rng.standard_normal(len(weights[name]), np.float32) for name in matrices}
    source = write_checkpoint(tmp_path / "source", config, weights, dtype=dtype)
    gguf = convert(source, tmp_path / "model.gguf", dtype.lower(), verify="bytes").path
    exported = export(gguf, tmp_path / "back")
    assert exported.dtype == dtype
    expected = bytes_of(source)
    found = bytes_of(exported.path)
    if dtype == "F32":
        assert found == expected
    else:
        assert {n: f for n, f in found.items() if len(f[1]) > 1} == {n: f for n, f in expected.items() if len(f[1]) > 1}
    said = json.loads((exported.path / "config.json").read_text(encoding="utf-8"))
    wanted = {key: value for key, value in config.items() if key != "torch_dtype"}
    assert {key: said[key] for key in wanted} == wanted
    again = convert(exported.path, tmp_path / "again.gguf", dtype.lower(), verify="bytes").path
    with open_gguf(gguf) as a, open_gguf(again) as b:
        names = {"general.name"}
        assert {k: a.metadata.raw(k) for k in a.metadata if k not in names} == {k: b.metadata.raw(k) for k in b.metadata if k not in names}
        assert all(np.array_equal(a.tensors[name].data, b.tensors[name].data) for name in a.tensors)


MIXTURE = {"num_experts_per_tok": 2}
QWEN_MIXTURE = MIXTURE | {"num_experts": 3, "moe_intermediate_size": 32}
PHI3_LONG = {
    "rope_type": "longrope", "long_factor": [4.0, 5.5, 6.25, 8.0], "short_factor": [1.0, 1.25, 1.5, 2.0], "attention_factor": 1.25,
    "original_max_position_embeddings": 64,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {"head_dim": 32},
    "GemmaForCausalLM": {
        "head_dim": 32, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    },
    "MixtralForCausalLM": MIXTURE | {"num_local_experts": 3},
    "Qwen2MoeForCausalLM": QWEN_MIXTURE | {"shared_expert_intermediate_size": 48},
    "Qwen3MoeForCausalLM": QWEN_MIXTURE | {"norm_topk_prob": True},
    "Phi3ForCausalLM": {
        "sliding_window": 40, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 64, "rope_scaling": PHI3_LONG,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_there_and_back(tmp_path: Path, name: str):
    """Every tensor that the rules name comes back in its own order, shape and bytes, with every setting."""
    config = CONFIG | OTHERS[name] | {"architectures": [name]}
    arch, rng, weights = HF_CLASSES[name], np.random.default_rng(5), {}
    read = HFConfig(config, "config.json")
    sizes = arch.sizes(read)
    for rule, layer in expand(arch.rules, config["num_hidden_layers"]):
        shape = stored_shape(rule, tuple(sizes[size] for size in rule.shape))
        for tensor in names_of(rule, layer, sizes.get("n_experts", 1)) if not rule.switch else ():
            weights[tensor] = rng.integers(-1000, 1000, shape).astype(np.float32) / 4096  # exact with 1 added, too
    source = write_checkpoint(tmp_path / "source", config, weights)
    exported = export(convert(source, tmp_path / "model.gguf", "f32").path, tmp_path / "back")
    assert bytes_of(exported.path) == bytes_of(source)
    said = json.loads((exported.path / "config.json").read_text(encoding="utf-8"))
    left_out = ("torch_dtype", "model_type")
    assert {key: said[key] for key in config if key not in left_out} == {key: config[key] for key in config if key not in left_out}


def test_shards_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_checkpoint(tmp_path / "source")
    gguf = convert(source, tmp_path / "model.gguf", "f32", verify="bytes").path
    monkeypatch.setattr(module, "SHARD_BYTES", 100_000)
    exported = export(gguf, tmp_path / "back")
    shards = sorted(path.name for path in exported.path.glob("*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert bytes_of(exported.path) == bytes_of(source)


def test_quantized_files_are_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gguf = write_llama(tmp_path / "q.gguf", "Q8_0")
    assert main([str(gguf), "-o", str(tmp_path / "hf"), "--dtype", "f32"]) == 0
    assert "in F32" in capsys.readouterr().out
    found = bytes_of(tmp_path / "hf")
    with open_gguf(gguf) as file:
        up = file.tensors["blk.1.ffn_up.weight"].dequantize()
    np.testing.assert_array_equal(np.frombuffer(found["model.layers.1.mlp.up_proj.weight"][2], np.float32).reshape(up.shape), up)
    assert export(gguf, tmp_path / "hf16").dtype == "F16"


@pytest.mark.parametrize("kind", ["sentencepiece", "byte-level"])
def test_tokenizer_files_give_the_same_ids(tmp_path: Path, kind: str):
    from tokenizers import Tokenizer

    source = write_checkpoint(tmp_path / "source", CONFIG | ({"vocab_size": 420} if kind == "sentencepiece" else {}))
    if kind == "sentencepiece":
        (source / "tokenizer.json").unlink()
        settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": "{{ messages[0].content }}"}
        (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        (source / "tokenizer.model").write_bytes(sentencepiece_model(user_defined_symbols="<tool>"))
    gguf = convert(source, tmp_path / "model.gguf", "f32", verify="bytes").path
    folder = export(gguf, tmp_path / "back").path
    with open_gguf(gguf) as file:
        ours, theirs = load_tokenizer(file.metadata), Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in [*proof_texts(), "a<tool>b </s> <|endoftext|>x"]:
        assert theirs.encode(text).ids == ours.encode(text, add_special=True, parse_special=True), text
    said = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if kind == "sentencepiece":
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        assert all(processor.EncodeAsIds(text) == ours.encode(text) for text in proof_texts())
        assert (said["bos_token"], said["chat_template"]) == ("<s>", "{{ messages[0].content }}")
    else:
        assert said["eos_token"] == "<|endoftext|>" and not (folder / "tokenizer.model").exists()
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == ours.eos


def refused(gguf: Path, out: Path, error: type[GGPyError], match: str, **options: Any) -> None:
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(error, match=match):
        export(gguf, out, **options)
    assert sorted(path.name for path in out.parent.iterdir()) == before


def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gguf = write_llama(tmp_path / "tiny.gguf", "F32", layers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x", encoding="utf-8")
    refused(gguf, tmp_path / "full", GGPyError, "exists already; name another output directory")
    refused(gguf, gguf, GGPyError, "exists already")
    refused(gguf, tmp_path / "out", GGPyError, "dtype f8 is none of f32, f16, bf16", dtype="f8")
    nan = write_llama_with_nan(tmp_path / "nan.gguf", "blk.1.ffn_up.weight")
    refused(nan, tmp_path / "out", CheckpointError, "blk.1.ffn_up.weight: .*nan")
    refused(write_llama(tmp_path / "b.gguf", layers=1, factors=True), tmp_path / "out", ModelError, "rope_freqs.weight holds factors")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_shards", full)
    refused(gguf, tmp_path / "out", GGPyError, "out: cannot be written: No space left on device")
    monkeypatch.undo()
    (tmp_path / "empty").mkdir()
    assert export(gguf, tmp_path / "empty").n_tensors == 11
