"""A model whose weights are changed in memory against one that is run from its beginning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.converter.pipeline import open_source
from ggpy.evaluate import kl_divergence, log_softmax
from ggpy.picker.formats import output_errors, rounded
from ggpy.picker.model import Bench, Outline

DEMO = Path(ggpy.__file__).parent / "demo"
PIECES = [list(range(5, 25)), list(range(100, 120))]
SKIP = 4


@pytest.fixture(scope="module")
def outline():
    source = open_source(DEMO)
    with Outline(source) as opened:
        yield opened
    source.close()


@pytest.fixture(scope="module")
def bench(outline: Outline):
    opened = Bench(outline, PIECES, SKIP, 1)
    yield opened
    opened.close()


def test_the_unchanged_model_predicts_what_the_converted_one_does(bench: Bench, tmp_path: Path):
    path = ggpy.convert(DEMO, tmp_path / "f16.gguf", "f16", verify="none").path
    with ggpy.load(path, threads=1) as model:
        expected = np.concatenate([log_softmax(model.logits(ids))[SKIP:] for ids in PIECES])
    assert np.abs(bench.log_probs - expected).max() < 2e-3  # a checkpoint's weights are rounded to float16 here as there
    assert bench.divergence(bench.tensors[0]) == 0.0


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight", "blk.2.attn_output.weight"])
def test_what_follows_a_changed_tensor_is_as_in_a_whole_pass(bench: Bench, name: str):
    values = rounded(bench.values[name], "Q4_0", None, 1)
    with bench.changed(name, values):
        partly = bench.divergence(name)
        whole = bench.divergence(bench.tensors[0])
    assert partly == whole > 1e-9
    assert bench.divergence(bench.tensors[0]) == 0.0


def test_the_divergence_is_that_of_a_file_with_the_tensor_quantized(bench: Bench, tmp_path: Path):
    name = "blk.1.ffn_up.weight"
    made = [ggpy.convert(DEMO, tmp_path / f"{t}.gguf", "f16", overrides={name: t}, verify="none").path for t in ("f16", "q4_0")]
    logs = []
    for path in made:
        with ggpy.load(path, threads=1) as model:
            logs.append(np.concatenate([log_softmax(model.logits(ids))[SKIP:] for ids in PIECES]))
    with bench.changed(name, rounded(bench.values[name], "Q4_0", None, 1)):
        assert bench.divergence(name) == pytest.approx(kl_divergence(*logs).mean(), rel=0.25)  # the file's product rounds activations, too


def test_all_tensors_change_at_once_and_come_back(bench: Bench):
    several = bench.divergence_of(dict.fromkeys(bench.tensors, "Q8_0"), {}, 1)
    assert 1e-6 < several < 0.01
    assert bench.divergence(bench.tensors[0]) == 0.0


def test_errors_of_outputs_count_what_is_multiplied():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((64, 256)).astype(np.float16)
    inputs = np.zeros((10, 256), np.float32)
    inputs[:, :32] = rng.standard_normal((10, 32))
    formats = ("Q4_0", "Q8_0", "F16")
    errors = output_errors(values, inputs, formats)
    assert errors["F16"] == 0.0 and errors["Q8_0"] < 0.01 * errors["Q4_0"] < 1e-3
    values[:, 32:] *= 100  # where inputs are zero, nothing is lost
    assert output_errors(values, inputs, formats) == pytest.approx(errors)
    assert output_errors(values, None, formats)["Q4_0"] != pytest.approx(errors["Q4_0"])
    assert output_errors(np.zeros((4, 256), np.float16), inputs, formats) == dict.fromkeys(formats, 0.0)
