"""Conversions made wrong on purpose must be caught by their certificate, and the fault be named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ggpy
from ggpy.arch import HF_CLASSES, Architecture, TensorRule
from ggpy.arch.llama import LLAMA
from ggpy.converter import convert
from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf

DEMO = Path(ggpy.__file__).parent / "demo"
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint, said to have Llama 3's rotary scaling."""
    folder = shutil.copytree(DEMO, tmp_path_factory.mktemp("scaled") / "Demo")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": LLAMA3}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def certified(scaled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    for recipe in ("f32", "q4_0"):
        certificate = convert(scaled, folder / f"{recipe}.gguf", recipe).certificate
        assert certificate is not None and certificate.passed and certificate.kl < certificate.kl_limit / 2
    return folder


def changed(change: Callable[[TensorRule], TensorRule]) -> Architecture:
    return dataclasses.replace(LLAMA, rules=tuple(change(rule) for rule in LLAMA.rules))


def unpermuted(part: str) -> Architecture:
    return changed(lambda rule: dataclasses.replace(rule, row_order=None) if part in rule.gguf else rule)


def swapped(a: str, b: str) -> Architecture:
    other = {a: b, b: a}

    def swap(rule: TensorRule) -> TensorRule:
        part = next((part for part in other if part in rule.gguf), None)
        return rule if part is None else dataclasses.replace(rule, gguf=rule.gguf.replace(part, other[part]))

    return changed(swap)


FAULTS = {
    "blk.0.attn_q.weight gives something else": unpermuted("attn_q"),
    "blk.0.attn_k.weight gives something else": unpermuted("attn_k"),
    "blk.0.ffn_gate.weight gives what the source's ffn_up does": swapped("ffn_gate", "ffn_up"),
    "blk.0.attn_norm.weight gives ": swapped("attn_norm", "ffn_norm"),
    "blk.0.attn_q is turned by other rotary angles": dataclasses.replace(LLAMA, extra_tensors=lambda hf: {}),
    "blk.0.attn_q is turned by other rotary": dataclasses.replace(
        LLAMA, metadata=lambda hf: LLAMA.metadata(hf) | {"llama.rope.freq_base": 20000.0}
    ),
    "blk.0.attn_norm.weight gives": dataclasses.replace(
        LLAMA, metadata=lambda hf: LLAMA.metadata(hf) | {"llama.attention.layer_norm_rms_epsilon": 0.1}
    ),
}


@pytest.mark.parametrize("recipe", ["f32", "q4_0"])
@pytest.mark.parametrize("named", FAULTS)
def test_a_wrong_conversion_is_refused_and_the_fault_named(
    scaled: Path, certified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, recipe: str
):
    out = shutil.copy(certified / f"{recipe}.gguf", tmp_path / "out.gguf")
    monkeypatch.setitem(HF_CLASSES, "LlamaForCausalLM", FAULTS[named])
    with pytest.raises(GGPyError) as caught:
        convert(scaled, out, recipe, force=True)
    line = str(caught.value)
    assert f"not certified: {named}" in line and "KL" in line and "expected below" in line and "\n" not in line
    with open_gguf(out) as file:
        assert file.metadata["ggpy.certificate.passed"]  # the good file from before
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_who_insists_gets_the_file_with_the_fault_on_record(scaled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(HF_CLASSES, "LlamaForCausalLM", unpermuted("attn_q"))
    report = convert(scaled, tmp_path / "out.gguf", "q8_0", allow_uncertified=True)
    assert report.certificate is not None and not report.certificate.passed and "blk.0.attn_q" in report.warnings[-1]
    with open_gguf(tmp_path / "out.gguf") as file:
        assert not file.metadata["ggpy.certificate.passed"] and file.metadata["ggpy.certificate.kl"] > 0.1
