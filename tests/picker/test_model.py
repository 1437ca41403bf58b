"""A model whose weights are changed in memory against one that is run from its beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy
from ggpy.blocks import BLOCKS
from ggpy.converter.pipeline import open_source
from ggpy.errors import GGPyError, ModelError
from ggpy.evaluate import kl_divergence, log_softmax
from ggpy.gguf import GGUFWriter
from ggpy.picker.formats import output_errors, rounded
from ggpy.picker.model import Bench, Outline, half_precision, matrices
from ggpy.picker.speed import weights_read
from tests.runtime.tiny import write_llama

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


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {"experts": 4, "tied": False}),
        ("phi3", {"tied": False}),
        ("gemma3", {}),
        ("qwen3moe", {"experts": 4}),
        ("qwen2", {"biases": True}),
    ],
)
def test_every_matrix_of_every_graph_can_be_changed_alone(architecture: str, options: dict[str, Any], tmp_path: Path):
    """Views of a matrix, experts, norms of heads, biases: what comes before a changed tensor is as it was, the rest is run again."""
    source = open_source(write_llama(tmp_path / "tiny.gguf", "F16", architecture=architecture, **options))
    with Outline(source) as outline:
        bench = Bench(outline, PIECES, SKIP, 1)
        names = {tensor.name for tensor in matrices(source)}
        assert set(bench.tensors) == names and bench.tensors[0] == "token_embd.weight"
        for name in reversed(bench.tensors):
            inputs = bench.inputs(name)
            assert inputs is None or inputs.shape[1] == bench.values[name].shape[1]
            with bench.changed(name, rounded(bench.values[name], "Q4_0", None, 1)):
                partly = bench.divergence(name)
                assert partly == bench.divergence(bench.tensors[0]) > 1e-9
        read = weights_read(outline)
        dense = {name: n for name, n in read.items() if "_exps" not in name}
        looked_up = {"token_embd.weight"} if "output.weight" in names else set()
        assert all(n == (0 if name in looked_up else bench.values[name].size) for name, n in dense.items())
        assert all(n == bench.values[name].size / 2 for name, n in read.items() if name not in dense)  # two of four experts
        bench.close()
    source.close()


def test_what_cannot_be_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = open_source(write_llama(tmp_path / "tiny.gguf", "F16"))
    with Outline(source) as outline:
        monkeypatch.setattr("ggpy.picker.model.available_memory", lambda: 1000)
        with pytest.raises(ModelError, match=r"^tiny: measuring it takes about 0\.0 GB of memory, 0\.0 GB are free$"):
            Bench(outline, PIECES, SKIP, 1)
    source.architecture = "bert"
    with pytest.raises(ModelError, match="tiny: architecture bert cannot be measured, ggpy runs llama"):
        Outline(source)
    source.close()


def test_values_beyond_half_precision_are_refused(tmp_path: Path):
    path = tmp_path / "large.gguf"
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add_tensor("blk.0.attn_q.weight", (4, 32), BLOCKS["F32"])
        writer.write_tensor("blk.0.attn_q.weight", np.full((4, 32), 1e5, np.float32))
    source = open_source(path)
    with pytest.raises(GGPyError, match=r"tensor blk\.0\.attn_q\.weight has values that are not finite or above 65504"):
        half_precision(source.tensors[0])
    with pytest.raises(GGPyError, match=r"^large: cannot be measured: key 'llama\.block_count'"):
        Outline(source)
    source.close()
