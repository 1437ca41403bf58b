"""Methods on a model: what its layers are given, and what `ggpy-methods` shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.cli.methods import main
from ggpy.errors import GGPyError
from ggpy.methods import METHODS
from ggpy.methods.activations import CHUNK, Model
from ggpy.methods.compare import compare, compare_model, default_layers

from .layers import layer

DEMO = Path(ggpy.__file__).parent / "demo"
TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void. " * 90


def test_a_layer_is_given_what_it_is_given_in_the_model(demo_gguf: Path):
    """Going on from the activations that were collected gives the tape's logits."""
    with Model(DEMO) as model:
        chunks = model.chunks(TEXT, 2 * CHUNK, "the text")
        seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        model.read(chunks, [0, 2], lambda name, weights, x: seen.update({name: (weights, x)}))
        matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        assert list(seen) == [f"blk.{i}.{name}.weight" for i in (0, 2) for name in matrices]
        assert all(x.shape == (2 * CHUNK, weights.shape[1]) for weights, x in seen.values())
        with ggpy.open_gguf(demo_gguf) as file:
            norm = file.tensors["blk.0.attn_norm.weight"].dequantize()
        embedding = next(t for t in model.source.tensors if t.name == "token_embd.weight").open()(0, 768)
    ids = chunks.reshape(-1)
    h = (embedding.astype(np.uint32) << 16).view(np.float32)[ids]
    h = h / np.sqrt(np.mean(h.astype(np.float64) ** 2, axis=1, keepdims=True) + 1e-5) * norm
    np.testing.assert_allclose(seen["blk.0.attn_q.weight"][1], h, rtol=1e-4, atol=1e-5)
    gate, up = (seen[f"blk.2.{name}.weight"] for name in ("ffn_gate", "ffn_up"))
    gated = gate[1] @ gate[0].T
    expected = gated / (1 + np.exp(-gated)) * (up[1] @ up[0].T)
    np.testing.assert_allclose(seen["blk.2.ffn_down.weight"][1], expected, rtol=1e-3, atol=1e-4)
    assert (chunks[:, 0] == 1).all() and (chunks[0, 1:5] != 1).all()  # each chunk begins with BOS


def test_chunks_do_not_see_each_other():
    with Model(DEMO) as model:
        chunks = model.chunks(TEXT, 2 * CHUNK, "the text")
        found: list[np.ndarray] = []
        for part in (chunks, chunks[1:]):
            model.read(part, [1], lambda name, weights, x: found.append(x) if "attn_output" in name else None)
    np.testing.assert_allclose(found[0][CHUNK:], found[1], rtol=1e-4, atol=1e-5)


def test_errors_are_relative_and_held_out():
    weights, activations, held_out = layer(16, 256)
    results = dict(compare(weights, activations, held_out, {"absmax": METHODS["absmax 8-bit"]}))
    result = results["absmax"]
    assert not isinstance(result, str)
    values = METHODS["absmax 8-bit"].quantize(weights, activations).values
    assert result.output_error == pytest.approx(np.linalg.norm((values - weights) @ held_out.T) / np.linalg.norm(weights @ held_out.T))
    assert result.weight_error == pytest.approx(np.linalg.norm(values - weights) / np.linalg.norm(weights))
    assert (result.rows, result.cols, result.sampled) == (16, 256, None)


def test_slow_methods_take_a_sample_and_say_so():
    weights, activations, held_out = layer(16, 64)
    found = dict(compare(weights, activations, held_out, {name: METHODS[name] for name in ("OBQ 4-bit", "Q4_K")}))
    assert found["Q4_K"] == "rows of 64 values are not whole Q4_K blocks of 256"
    assert not isinstance(found["OBQ 4-bit"], str) and found["OBQ 4-bit"].sampled == 4


def test_the_command_compares_and_sorts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    few = ["--layers", "1", "--tensors", "attn_k,ffn_down", "--methods", "absmax,gptq 4-bit,q4_k", "--tokens", "512", "--text", str(text)]
    assert main([str(DEMO), *few]) == 0
    shown = capsys.readouterr().out
    assert "layers 1 of " in shown and "512 tokens to calibrate on, errors over 256 others" in shown
    assert "1 matrix with rows of 256" in shown and "1 matrix with rows of 512" in shown
    rows = [line for line in shown.splitlines() if line.startswith(("absmax", "grouped", "GPTQ", "Q4_K"))]
    assert len(rows) == 2 * 8
    assert main([str(DEMO), *few, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {result["matrix"] for result in found["results"]} == {"blk.1.attn_k.weight", "blk.1.ffn_down.weight"}
    for cols in (256, 512):
        errors = [summary["output_error"] for summary in found["summaries"] if summary["cols"] == cols]
        assert errors == sorted(errors) and 0 < errors[0] < errors[-1] < 1
    bits = {(result["method"], result["cols"]): result["bits"] for result in found["results"]}
    assert bits["absmax 8-bit", 512] == 8 + 16 / 512 and bits["Q4_K", 256] == 4.5


def test_python_itself_brings_a_text(capsys: pytest.CaptureFixture[str]):
    assert main([str(DEMO), "--layers", "0", "--tensors", "attn_v", "--methods", "nf4", "--tokens", "256"]) == 0
    assert "NF4 double" in capsys.readouterr().out


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = tmp_path / "text.txt"
    text.write_text("Too short.", encoding="utf-8")
    for arguments, said in (
        (["--layers", "7"], "layer 7: the model has layers 0 to 2"),
        (["--tensors", "attn_x", "--tokens", "256", "--layers", "0"], "attn_x is in none of blk.0.attn_q.weight"),
        (["--methods", "magic"], "--methods magic: expected a part of one of absmax 8-bit"),
        (["--text", str(text)], "tokens, expected 8192 at least"),
    ):
        assert main([str(DEMO), *arguments]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    with pytest.raises(GGPyError, match="the held-out text has"):
        compare_model(DEMO, TEXT, "Too short.", tokens=256)


def test_the_first_the_middle_and_the_last_layer():
    assert default_layers(30) == [0, 15, 29] and default_layers(1) == [0]
