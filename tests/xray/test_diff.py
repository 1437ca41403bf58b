"""What differs between two files is listed, with figures, and told by the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ggpy.cli.diff import main
from ggpy.converter import convert
from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf
from ggpy.mend.edit import Changes, edit
from ggpy.mend.values import parse_assignment
from ggpy.xray import xray
from ggpy.xray.diff import diff
from ggpy.xray.diff_words import diff_sentences

from .conftest import DEMO, Make, Remake


def test_equal_files(converted: Path, copied: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(converted), str(copied)]) == 0
    assert capsys.readouterr().out.endswith("29 tensors are equal to the byte.\nno differences\n")


def test_weights_that_differ(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = convert(DEMO, tmp_path / "f32.gguf", "f32", verify="bytes").path
    found = diff(other, converted)
    by_name = {tensor.name: tensor for tensor in found.tensors}
    with open_gguf(other) as a, open_gguf(converted) as b:
        x, y = (file.tensors["blk.0.ffn_up.weight"].dequantize().astype(np.float64) for file in (a, b))
    tensor = by_name["blk.0.ffn_up.weight"]
    assert tensor.error and tensor.error.relative_rmse == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-5)
    assert tensor.error.max_error == pytest.approx(np.abs(y - x).max())
    assert (tensor.a, tensor.b) == ("F32 512 × 256", "Q4_K 512 × 256") and tensor.bits == (32, 4.5)
    assert found.n_equal == 7 and found.bits_per_weight[0] == 32 and "general.file_type" in {key.key for key in found.keys}
    assert main([str(other), str(converted), "--json"]) == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["equal"] is False and len(shown["tensors"]) == 22


def test_which_is_nearer_to_the_base(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    better = convert(DEMO, tmp_path / "q8.gguf", "q8_0", verify="bytes").path
    found = diff(converted, better, DEMO, threads=2)
    a, b = (xray(path, DEMO) for path in (converted, better))
    assert found.base_errors == pytest.approx((a.relative_rmse, b.relative_rmse), rel=1e-4)
    for tensor in found.tensors:
        one, other = (next(t for t in x.tensors if t.name == tensor.name).error for x in (a, b))
        assert tensor.base_errors == (replace(one, share=None), replace(other, share=None)) if one and other else False
        assert tensor.gain is not None and tensor.gain > 3
    said = diff_sentences(found)
    assert "B is better by" in said[1] and said[2] == f"Of {len(found.tensors)} tensors that differ, B is nearer to the base in 22, A in 0."
    other_way = diff(better, converted, DEMO)
    assert {t.name: t.gain for t in other_way.tensors} == {t.name: -t.gain for t in found.tensors if t.gain is not None}
    assert main([str(converted), str(better), "--base", str(DEMO), "--top", "5"]) == 3
    shown = capsys.readouterr().out
    assert "5 of 22" in shown and "B +" in shown and "nearer" in shown


def test_a_tensor_in_one_file_alone(make: Make):
    weights = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    a, b = make("a.gguf", {"x": ("Q4_0", weights), "y": ("Q4_0", weights)}), make("b.gguf", {"x": ("Q8_0", weights)})
    base = make("base.gguf", {"x": ("F32", weights), "y": ("F32", weights)})
    found = diff(a, b, base)
    (x, y) = found.tensors
    assert x.gain and x.gain > 10 and y.b is None and y.error is None and found.ranked == [y, x]
    assert found.base_errors == pytest.approx([e.relative_rmse for e in x.base_errors or ()])
    assert "Only in A: y." in diff_sentences(found)
    with pytest.raises(GGPyError, match="another model"):
        diff(a, b, make("o.gguf", {"z": ("F32", weights)}))


def test_keys_tokens_and_missing_tensors(converted: Path, copied: Path, capsys: pytest.CaptureFixture[str]):
    with open_gguf(copied) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
    tokens[700] = "odd token"
    edit(copied, Changes([parse_assignment("tokenizer.ggml.tokens=" + json.dumps(tokens)), parse_assignment("extra.key:bool=true")]))
    assert main([str(converted), str(copied)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert any("tokenizer.ggml.tokens" in line and "1 of them other; the first, 700," in line and "odd token" in line for line in lines)
    assert "key extra.key: missing | true (bool)" in lines


def test_numbers_that_are_none(converted: Path, remade: Remake, capsys: pytest.CaptureFixture[str]):
    broken = remade(data={"output_norm.weight": np.full(256, np.nan, np.float32).tobytes()})
    assert main([str(converted), str(broken), "--json"]) == 3
    tensor = json.loads(capsys.readouterr().out)["tensors"][0]
    assert tensor["relative_rmse"] == "nan" and tensor["name"] == "output_norm.weight"
