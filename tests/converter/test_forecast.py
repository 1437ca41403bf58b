"""What is said of a conversion before it is done, held to what it does."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from ggpy.converter import convert
from ggpy.converter.explain import bits_per_weight, explain, llama_8b, recipe_table, reports
from ggpy.converter.forecast import BESIDE, forecast
from ggpy.converter.imatrix import Collected, ImportanceMatrix, write_imatrix
from ggpy.converter.options import Options
from ggpy.converter.recipes import RECIPES
from ggpy.converter.tensor_types import TensorInfo
from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter

from .checkpoints import CONFIG, write_checkpoint

WIDE = CONFIG | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2}
PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("forecast") / "Wide", WIDE, dtype="BF16")


@pytest.mark.parametrize("type", ["q4_k_m", "f16", "iq4_xs"])
@pytest.mark.parametrize("verify", ["full", "bytes"])
def test_the_size_is_that_of_the_file(checkpoint: Path, tmp_path: Path, type: str, verify: str):
    expected = forecast(checkpoint, tmp_path / "a.gguf", Options(type=type, verify=verify))
    assert not list(tmp_path.iterdir())  # nothing is written
    report = convert(checkpoint, tmp_path / "a.gguf", type, verify=verify)
    assert expected.file_bytes == report.file_bytes == (tmp_path / "a.gguf").stat().st_size
    assert [(t.name, t.format, t.n_bytes) for t in expected.tensors] == [(t.name, t.format, t.n_bytes) for t in report.tensors]


def test_the_size_is_that_of_a_requantized_file_with_an_importance_matrix(checkpoint: Path, tmp_path: Path):
    source = convert(checkpoint, tmp_path / "a.gguf", "f16", verify="none").path
    entries = {"blk.0.attn_q.weight": Collected(np.ones((1, 256), np.float32), np.array([9]))}
    write_imatrix(ImportanceMatrix(entries, ("text.txt",), 3, 512), tmp_path / "imatrix.gguf")
    options = Options(type="q5_0", imatrix=tmp_path / "imatrix.gguf", overrides=(("ffn", "q2_k"),))
    expected = forecast(source, tmp_path / "b.gguf", options)
    report = convert(source, tmp_path / "b.gguf", "q5_0", imatrix=tmp_path / "imatrix.gguf", overrides={"ffn": "q2_k"})
    assert expected.file_bytes == report.file_bytes and expected.imatrix == report.imatrix and expected.warnings == report.warnings


def test_memory_is_file_and_cache_and_what_a_process_takes(checkpoint: Path, tmp_path: Path):
    found = forecast(checkpoint, tmp_path / "a.gguf", Options(type="q8_0"), context=100)
    assert found.cache_bytes == 128 * 2 * 2 * 2 * (64 + 64)  # positions come by 64; two layers, two heads, keys and values of f16
    assert found.run_bytes == found.file_bytes + found.cache_bytes + BESIDE
    assert forecast(checkpoint, tmp_path / "a.gguf", Options()).context == CONFIG["max_position_embeddings"]
    shown = str(found)
    assert "memory to run it at 100 tokens: " in shown and f"{found.file_bytes} bytes" in shown
    assert re.search(r"^blk\.1\.ffn_down\.weight +256 × 256 +BF16 +Q8_0 +68\.00 KiB$", shown, re.MULTILINE)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["tensors"][0]["format"] == "Q8_0"


def test_what_does_not_fit_is_said(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ggpy.converter.forecast.available_memory", lambda: 1000)
    monkeypatch.setattr("ggpy.converter.forecast._free", lambda target: 10)
    found = forecast(checkpoint, tmp_path / "a.gguf", Options())
    assert "does not fit: 10 B free on that disk" in str(found) and "does not fit: 1000 B free of memory" in str(found)
    assert found.to_json()["fits_disk"] is False and found.to_json()["fits_memory"] is False


def test_an_architecture_that_does_not_run_has_no_memory(tmp_path: Path):
    with GGUFWriter(tmp_path / "a.gguf") as writer:
        writer.add("general.architecture", "falcon")
    assert "memory to run it: not known" in str(forecast(tmp_path / "a.gguf", tmp_path / "b.gguf", Options()))


def test_what_convert_refuses_is_refused(checkpoint: Path, tmp_path: Path):
    with pytest.raises(GGPyError, match="Q2_K_S needs an importance matrix"):
        forecast(checkpoint, tmp_path / "a.gguf", Options(type="q2_k_s"))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_is_explained_in_five_lines(recipe):
    lines = explain(recipe)
    assert len(lines) == 5 and all(len(line) <= 200 for line in lines) and lines[0].startswith(recipe.name)
    assert f"{recipe_table()[list(RECIPES).index(recipe.name)][2]:.3f} bits per weight" in lines[4]


def test_an_explanation_is_computed():
    text = "\n".join(explain(RECIPES["Q4_K_M"]))
    assert "super-blocks of 256 weights in 144 bytes, 4.5 bits per weight: 8 sub-blocks of 32" in text
    assert "output Q6_K, attn_v Q6_K in 16 of 32 layers, ffn_down Q6_K in 16 of 32 layers" in text
    tensors, facts = llama_8b()
    assert sum(math.prod(t.shape) for t in tensors) == 8_030_261_248
    assert bits_per_weight(reports(tensors, RECIPES["Q8_0"], facts)) == pytest.approx(8.5, abs=2e-3)
    assert "ffn_down IQ4_XS, not Q5_K, in 4 layers" in explain(RECIPES["IQ4_XS"])[3]
    narrow = [TensorInfo(f"blk.{i}.attn_q.weight", (96, 96), "F32") for i in range(2)]
    assert explain(RECIPES["Q4_K_M"], narrow, facts, "mine")[2].endswith("Q5_0 where rows are no multiple of 256")


def test_the_page_of_recipes_shows_the_table():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name, format, plain, weighted, needed in recipe_table():
        (line,) = (line for line in lines if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[:4] == [name, format, "needs one" if needed else f"{plain:.3f}", f"{weighted:.3f}"]
