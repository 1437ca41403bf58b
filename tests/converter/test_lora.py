"""LoRA adapters: merged as peft merges them, written as GGUF adapters as llama.cpp reads them, and everything else refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggpy.cli.convert import main
from ggpy.converter import convert, stream
from ggpy.converter.lora_file import convert_adapter
from ggpy.errors import CheckpointError, GGPyError
from ggpy.gguf import open_gguf

from .checkpoints import CONFIG, Entries, random_weights, safetensors_bytes, stored, write_checkpoint

Q, K, UP = (f"model.layers.{i}.{part}" for i, part in ((0, "self_attn.q_proj"), (1, "self_attn.k_proj"), (1, "mlp.up_proj")))
EMBEDDING, HEAD, NORM = "model.embed_tokens", "lm_head", "model.norm"
SHAPES = {Q: (64, 64), K: (32, 64), UP: (96, 64), HEAD: (264, 64)}
TIED = CONFIG | {"tie_word_embeddings": True}
RANK = 4


def factors(name: str, rank: int = RANK, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A and B of a module."""
    rng = np.random.default_rng([seed, *name.encode()])
    rows, columns = (64, 264) if name == EMBEDDING else SHAPES[name]
    return 0.1 * rng.standard_normal((rank, columns), np.float32), 0.1 * rng.standard_normal((rows, rank), np.float32)


def write_adapter(
    folder: Path,
    names: tuple[str, ...] = (Q, K, UP),
    seed: int = 0,
    dtype: str = "F32",
    ranks: Mapping[str, int] | None = None,
    whole: Mapping[str, np.ndarray] | None = None,
    extra: Entries | None = None,
    **config: Any,
) -> Path:
    """An adapter directory as peft saves it. config: changes of adapter_config.json."""
    folder.mkdir(exist_ok=True)
    values: Entries = {}
    for name in names:
        a, b = factors(name, (ranks or {}).get(name, RANK), seed)
        parts = ("lora_embedding_A", "lora_embedding_B") if name == EMBEDDING else ("lora_A.weight", "lora_B.weight")
        for part, matrix in zip(parts, (a, b), strict=True):
            values[f"base_model.model.{name}.{part}"] = stored(matrix, dtype)
    values |= {f"base_model.model.{name}.weight": stored(matrix, dtype) for name, matrix in (whole or {}).items()}
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(values | (extra or {}), {"format": "pt"}))
    settings = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 8,
        "use_dora": False,
        "base_model_name_or_path": "some/base",
        "qalora_group_size": 16,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config), encoding="utf-8")
    return folder


def merged(base: Path, weights: Mapping[str, np.ndarray], folder: Path, changes: Mapping[str, np.ndarray]) -> Path:
    """The F32 file of the checkpoint with `changes` added by hand, in float64."""
    changed = {name: (values + changes.get(name.removesuffix(".weight"), 0.0)).astype(np.float32) for name, values in weights.items()}
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return convert(write_checkpoint(folder, config, changed), folder / "expected.gguf", "f32").path


def delta(name: str, scale: float, rank: int = RANK, seed: int = 0) -> np.ndarray:
    a, b = (values.astype(np.float64) for values in factors(name, rank, seed))
    return scale * ((b @ a).T if name == EMBEDDING else b @ a)


def check_equal(got: Path, expected: Path) -> None:
    """Up to a rounding of float32."""
    with open_gguf(got) as a, open_gguf(expected) as b:
        assert list(a.tensors) == list(b.tensors)
        for name, tensor in a.tensors.items():
            np.testing.assert_allclose(tensor.dequantize(), b.tensors[name].dequantize(), rtol=0, atol=2e-7, err_msg=name)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return random_weights(CONFIG)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, np.ndarray]) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "Base", CONFIG, weights)


def test_matrices_get_their_change(base: Path, weights: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """q and k among them, whose rows GGUF has in another order."""
    monkeypatch.setattr(stream, "CHUNK_VALUES", 700)  # pieces of 7 to 10 rows, which cut through heads
    names = (Q, K, UP, HEAD, EMBEDDING)
    adapter = write_adapter(tmp_path / "adapter", names)
    report = convert(base, tmp_path / "out.gguf", "f32", lora=[adapter])
    assert report.certificate and report.certificate.passed and report.certificate.kl < 1e-4
    assert report.merged == (f"merged {adapter} into 5 tensors with weight 1",) and report.merged[0] in str(report)
    check_equal(report.path, merged(base, weights, tmp_path / "merged", {name: delta(name, 8 / 4) for name in names}))
    with open_gguf(report.path) as file, open_gguf(convert(base, tmp_path / "base.gguf", "f32").path) as plain:
        changed = [name for name in file.tensors if not np.array_equal(file.tensors[name].data, plain.tensors[name].data)]
    assert changed == ["token_embd.weight", "blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.ffn_up.weight", "output.weight"]


def test_ranks_alphas_and_rslora(base: Path, weights: dict[str, np.ndarray], tmp_path: Path):
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1.mlp.up_proj": 3, "_proj": 100, "^k_proj": 7}}
    adapter = write_adapter(tmp_path / "adapter", ranks={Q: 2}, dtype="F16", **patterns, use_rslora=True)
    report = convert(base, tmp_path / "out.gguf", "f32", lora=[adapter])
    changes = {Q: delta(Q, 8 / math.sqrt(2), 2), K: delta(K, 8 / 2), UP: delta(UP, 3 / 2)}
    with open_gguf(report.path) as got, open_gguf(merged(base, weights, tmp_path / "merged", changes)) as expected:
        for name, tensor in got.tensors.items():
            np.testing.assert_allclose(tensor.dequantize(), expected.tensors[name].dequantize(), atol=1e-3, rtol=0)


def test_several_adapters_with_weights(base: Path, weights: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = write_adapter(tmp_path / "first", (Q, K)), write_adapter(tmp_path / "with=sign", (K, UP), seed=1)
    arguments = [
        str(base),
        "-t",
        "f32",
        "-o",
        str(tmp_path / "out.gguf"),
        "--lora",
        f"{first}=0.5",
        "--lora",
        f"{second}",
        "--lora",
        f"{first}=-2",
    ]
    assert main(arguments) == 0
    assert "with weight 0.5\nmerged" in capsys.readouterr().out
    changes = {Q: delta(Q, -3.0), K: delta(K, -3.0) + delta(K, 2.0, seed=1), UP: delta(UP, 2.0, seed=1)}
    check_equal(tmp_path / "out.gguf", merged(base, weights, tmp_path / "merged", changes))


def test_the_same_bytes_for_any_number_of_threads(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    adapter = write_adapter(tmp_path / "adapter", (Q, K, UP, EMBEDDING))
    expected = convert(base, tmp_path / "a.gguf", "q8_0", lora=[adapter], threads=1).path.read_bytes()
    assert convert(base, tmp_path / "b.gguf", "q8_0", lora=[(adapter, 1.0)], threads=3).path.read_bytes() == expected


def test_whole_tensors_take_the_place_of_others(base: Path, weights: dict[str, np.ndarray], tmp_path: Path):
    """`modules_to_save`, in the spellings of several versions of peft; a whole matrix whose rows GGUF reorders, too."""
    rng = np.random.default_rng(3)
    whole = {NORM: rng.standard_normal(64, np.float32), HEAD: rng.standard_normal((264, 64), np.float32), Q: np.eye(64, dtype=np.float32)}
    names = {NORM: NORM, HEAD: f"{HEAD}.modules_to_save", Q: f"{Q}.modules_to_save.default"}
    adapter = write_adapter(tmp_path / "adapter", (UP,), whole={names[name]: values for name, values in whole.items()})
    report = convert(base, tmp_path / "out.gguf", "f32", lora=[adapter])
    check_equal(
        report.path, merged(base, weights | {f"{n}.weight": v for n, v in whole.items()}, tmp_path / "merged", {UP: delta(UP, 2.0)})
    )
    with pytest.raises(CheckpointError, match=r"puts another .* in place, which weight 0.5 cannot"):
        convert(base, tmp_path / "no.gguf", "f32", lora=[(adapter, 0.5)])
    with pytest.raises(CheckpointError, match=r"puts another .* in place, as .*adapter does already"):
        convert(base, tmp_path / "no.gguf", "f32", lora=[adapter, adapter])


@pytest.mark.parametrize("name", [EMBEDDING, HEAD])
def test_a_tied_head_is_stored_apart_where_only_one_changes(weights: dict[str, np.ndarray], tmp_path: Path, name: str):
    tied = {key: values for key, values in weights.items() if key != "lm_head.weight"}
    base, adapter = write_checkpoint(tmp_path / "tied", TIED, tied), write_adapter(tmp_path / "adapter", (name,))
    report = convert(base, tmp_path / "out.gguf", "f32", lora=[adapter])
    assert report.certificate and report.certificate.passed
    assert any(f"the adapter changes {name}.weight: the two are stored apart" in line for line in report.warnings)
    apart = write_checkpoint(tmp_path / "apart", CONFIG, tied | {"lm_head.weight": tied["model.embed_tokens.weight"]})
    check_equal(
        report.path, merged(apart, tied | {"lm_head.weight": tied["model.embed_tokens.weight"]}, tmp_path / "m", {name: delta(name, 2.0)})
    )
    together = write_adapter(tmp_path / "together", (name,), ensure_weight_tying=True)
    report = convert(base, tmp_path / "together.gguf", "f32", lora=[together])
    assert report.warnings == ()
    check_equal(report.path, merged(base, tied, tmp_path / "m2", {EMBEDDING: delta(name, 2.0)}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "use_dora is True, expected nothing: this variant of LoRA is not known"),
        ({"use_qalora": True}, "use_qalora is True"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is"),
        ({"something_new": {"a": 1}}, "something_new is"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', expected LORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', expected true, false or one of"),
        ({"r": 8}, "expected rank 8 by adapter_config.json"),
        ({"r": 0}, "r is 0, expected a finite number above 0"),
        ({"lora_alpha": None}, "lora_alpha is missing"),
        ({"rank_pattern": {"(a+)+b": 4}}, r"key '\(a\+\)\+b', expected the end of a module's name"),
        ({"alpha_pattern": {"[": 4}}, r"key '\[', expected"),
    ],
)
def test_variants_are_refused_by_name(base: Path, tmp_path: Path, config: dict[str, Any], message: str):
    adapter = write_adapter(tmp_path / "adapter", **config)
    with pytest.raises(CheckpointError, match=message):
        convert(base, tmp_path / "out.gguf", "f32", lora=[adapter])
    assert not (tmp_path / "out.gguf").exists()


def stored_zeros(*shape: int, dtype: str = "F32") -> tuple[str, tuple[int, ...], bytes]:
    return stored(np.zeros(shape, np.float32), dtype)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({f"base_model.model.{Q}.lora_magnitude_vector": stored_zeros(64)}, "lora_magnitude_vector: expected none, as DoRA is not"),
        ({f"base_model.model.{Q}.lora_B.bias": stored_zeros(64)}, "lora_B.bias: expected lora_A, lora_B or a whole weight"),
        ({f"base_model.model.{HEAD}.lora_A.weight": stored_zeros(4, 64)}, "lm_head has lora_A, expected lora_A and lora_B"),
        ({f"base_model.model.{HEAD}.lora_A.weight": stored_zeros(4, 64, dtype="I32")}, "is I32, expected one of F32, F16, BF16"),
        ({f"base_model.model.{HEAD}.lora_A.weight": stored_zeros(4)}, r"has shape \[4\], expected two dimensions"),
        (
            {"base_model.model.model.layers.7.mlp.up_proj.weight": stored_zeros(96, 64)},
            r"changes 1 tensors that .* no place: model.layers.7",
        ),
        ({"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": stored_zeros(2, 64)}, "expected lora_A, lora_B or a"),
        (
            {"base_model.model.lm_head.weight": stored_zeros(270, 64)},
            r"is for a tensor of shape \[270, 64\], expected \[264, 64\] for lm_head",
        ),
    ],
)
def test_tensors_that_are_no_adapter_of_the_base(base: Path, tmp_path: Path, extra: Entries, message: str):
    adapter = write_adapter(tmp_path / "adapter", extra=extra)
    with pytest.raises(CheckpointError, match=message):
        convert(base, tmp_path / "out.gguf", "f32", lora=[adapter])


def test_other_faults(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter = write_adapter(tmp_path / "adapter")
    gguf = convert(base, tmp_path / "base.gguf", "f32").path
    with pytest.raises(CheckpointError, match=r"merged into a checkpoint directory, not into a GGUF file"):
        convert(gguf, tmp_path / "no.gguf", "q8_0", lora=[adapter])
    with pytest.raises(CheckpointError, match=r"no adapter_config.json"):
        convert(base, tmp_path / "no.gguf", "q8_0", lora=[base])
    with pytest.raises(GGPyError, match="is the input"):
        convert(base, adapter / "adapter_model.safetensors", "q8_0", lora=[adapter], force=True)
    assert main([str(base), "--lora", f"{adapter}=much", "-o", str(tmp_path / "no.gguf")]) == 1
    assert "weight 'much' is not a finite number" in capsys.readouterr().err
    wide = write_adapter(tmp_path / "nan", whole={NORM: np.full(64, np.nan, np.float32)})
    with pytest.raises(CheckpointError, match=r"tensor model.norm.weight is nan at index \[0\]"):
        convert(base, tmp_path / "no.gguf", "q8_0", lora=[wide])
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="the adapter is pickled"):
        convert(base, tmp_path / "no.gguf", "q8_0", lora=[adapter])


# --- adapters as GGUF files --------------------------------------------------------------------------------------------


def applied(base: Path, adapter: Path) -> dict[str, np.ndarray]:
    """What a reader of both files computes with: W + alpha / r · B A; of an embedding B A is the other way round."""
    with open_gguf(base) as file, open_gguf(adapter) as changes:
        weights = {name: tensor.dequantize() for name, tensor in file.tensors.items()}
        alpha = changes.metadata.number("adapter.lora.alpha")
        for name in (name.removesuffix(".lora_a") for name in changes.tensors if name.endswith(".lora_a")):
            a, b = (changes.tensors[f"{name}.lora_{part}"].dequantize() for part in "ab")
            weights[name] = weights[name] + np.float32(alpha / b.shape[1]) * (a @ b.T if name == "token_embd.weight" else b @ a)
    return weights


def test_an_adapter_file_gives_what_merging_gives(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = {f"base_model.model.{EMBEDDING}.base_layer.weight": stored(random_weights(CONFIG)[f"{EMBEDDING}.weight"])}
    adapter = write_adapter(tmp_path / "my-adapter", (Q, K, UP, HEAD, EMBEDDING), ranks={Q: 2}, rank_pattern={"q_proj": 2}, use_rslora=True,
                            extra=copy)  # fmt: skip
    assert main([str(adapter), "--base", str(base), "-o", str(tmp_path / "adapter.gguf")]) == 0
    assert "its copy of model.embed_tokens.weight is left out" in capsys.readouterr().err
    merged = convert(base, tmp_path / "merged.gguf", "f32", lora=[adapter]).path
    found = applied(convert(base, tmp_path / "base.gguf", "f32").path, tmp_path / "adapter.gguf")
    with open_gguf(merged) as file:
        for name, tensor in file.tensors.items():
            np.testing.assert_allclose(found[name], tensor.dequantize(), rtol=0, atol=3e-7, err_msg=name)
    with open_gguf(tmp_path / "adapter.gguf") as file:
        assert {key: file.metadata[key] for key in file.metadata} == {
            "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "general.name": "my adapter",
            "general.base_model.count": 1, "general.base_model.0.name": "base", "general.file_type": 0,
            "adapter.lora.alpha": pytest.approx(8 / math.sqrt(2) * 2),
        }  # fmt: skip


def test_adapter_files_in_half_precision(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    adapter = write_adapter(tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    report = convert_adapter(adapter, base, type="bf16")
    with open_gguf(report.path) as file:
        assert {tensor.format.name for tensor in file.tensors.values()} == {"BF16"} and report.path == Path("adapter-BF16.gguf")
    with pytest.raises(GGPyError, match="type Q8_0 is none of F32, F16, BF16"):
        convert_adapter(adapter, base, type="q8_0")
    with pytest.raises(GGPyError, match="exists already"):
        convert_adapter(adapter, base, type="bf16")


def test_what_no_adapter_file_can_hold(base: Path, weights: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tied = write_checkpoint(tmp_path / "tied", TIED, {key: values for key, values in weights.items() if key != "lm_head.weight"})
    for name in (EMBEDDING, HEAD):
        with pytest.raises(CheckpointError, match="embedding and head are tied"):
            convert_adapter(write_adapter(tmp_path / "a", (name,)), tied, tmp_path / "no.gguf")
    with pytest.raises(CheckpointError, match=re.escape("puts 1 tensors in place whole (model.norm.weight)")):
        convert_adapter(write_adapter(tmp_path / "b", whole={NORM: np.ones(64, np.float32)}), base, tmp_path / "no.gguf")
    small = write_checkpoint(tmp_path / "small", CONFIG | {"num_hidden_layers": 1})
    with pytest.raises(CheckpointError, match=r"changes model.layers.1.self_attn.k_proj.weight, which .* gives no place"):
        convert_adapter(write_adapter(tmp_path / "c"), small, tmp_path / "no.gguf")
    wide = write_checkpoint(tmp_path / "wide", CONFIG | {"num_attention_heads": 8})
    with pytest.raises(CheckpointError, match=r"is for a tensor of shape \[32, 64\], expected \[16, 64\]"):
        convert_adapter(write_adapter(tmp_path / "d"), wide, tmp_path / "no.gguf")
    large = {
        f"base_model.model.{HEAD}.lora_{part}.weight": stored(np.full(shape, 1e5)) for part, shape in (("A", (4, 64)), ("B", (264, 4)))
    }
    with pytest.raises(CheckpointError, match=r"output.weight.lora_a holds values up to 100000, which overflow F16"):
        convert_adapter(write_adapter(tmp_path / "e", extra=large), base, tmp_path / "no.gguf", "f16")
    assert main([str(tmp_path / "d")]) == 1 and "name its base checkpoint with --base" in capsys.readouterr().err
    assert main([str(base), "--base", str(base), "-o", str(tmp_path / "no.gguf")]) == 1
    assert "is for adapters" in capsys.readouterr().err
    assert not (tmp_path / "no.gguf").exists()
