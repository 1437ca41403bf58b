"""What differs between two files is listed, with figures, and told by the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ggpy.cli.diff import main
from ggpy.converter import convert
from ggpy.gguf import open_gguf
from ggpy.mend.diff import diff
from ggpy.mend.edit import Changes, edit
from ggpy.mend.values import parse_assignment

from .conftest import DEMO, Remake


def test_equal_files(converted: Path, copied: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(converted), str(copied)]) == 0
    assert capsys.readouterr().out.endswith("29 tensors equal to the byte\nno differences\n")


def test_weights_that_differ(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = convert(DEMO, tmp_path / "f32.gguf", "f32", verify="bytes").path
    found = diff(other, converted)
    by_name = {tensor.name: tensor for tensor in found.tensors}
    with open_gguf(other) as a, open_gguf(converted) as b:
        x, y = (file.tensors["blk.0.ffn_up.weight"].dequantize().astype(np.float64) for file in (a, b))
    tensor = by_name["blk.0.ffn_up.weight"]
    assert tensor.relative_rmse == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x))
    assert tensor.max_error == pytest.approx(np.abs(y - x).max()) and (tensor.a, tensor.b) == ("F32 512 × 256", "Q4_K 512 × 256")
    assert found.n_equal == 7 and found.bits_per_weight[0] == 32 and "general.file_type" in {key.key for key in found.keys}
    assert main([str(other), str(converted), "--json"]) == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["equal"] is False and len(shown["tensors"]) == 22


def test_keys_tokens_and_missing_tensors(converted: Path, copied: Path):
    with open_gguf(copied) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
    tokens[700] = "odd token"
    edit(copied, Changes([parse_assignment("tokenizer.ggml.tokens=" + json.dumps(tokens)), parse_assignment("extra.key:bool=true")]))
    lines = str(diff(converted, copied)).splitlines()
    assert any("tokenizer.ggml.tokens" in line and "1 of them other; the first, 700," in line and "odd token" in line for line in lines)
    assert "key extra.key: missing | true (bool)" in lines


def test_numbers_that_are_none(converted: Path, remade: Remake, capsys: pytest.CaptureFixture[str]):
    broken = remade(data={"output_norm.weight": np.full(256, np.nan, np.float32).tobytes()})
    assert main([str(converted), str(broken), "--json"]) == 3
    tensor = json.loads(capsys.readouterr().out)["tensors"][0]
    assert tensor["relative_rmse"] == "nan" and tensor["name"] == "output_norm.weight"
