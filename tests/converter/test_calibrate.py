"""Converting with a calibration text: the same bytes every time, better predictions, one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.cli.convert import main
from ggpy.cli.model_file import DEMO
from ggpy.converter import convert
from ggpy.converter.count import count_inputs
from ggpy.converter.imatrix import read_imatrix
from ggpy.errors import GGPyError
from ggpy.evaluate.probabilities import kl_divergence, log_softmax
from ggpy.gguf import open_gguf
from ggpy.runtime.encode import encode_rows
from tests.converter.checkpoints import CONFIG, random_weights, write_checkpoint
from tests.runtime.tiny import write_llama

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. "


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("calibrate") / "checkpoint")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT * 20, encoding="utf-8")
    return path


@pytest.mark.parametrize("method", ["imatrix", "gptaq"])
def test_the_same_bytes_on_any_number_of_threads_and_from_any_source(checkpoint: Path, text: Path, tmp_path: Path, method: str):
    convert(checkpoint, tmp_path / "float.gguf", "f32")
    results = []
    for threads, source in ((1, checkpoint), (2, checkpoint), (2, tmp_path / "float.gguf")):
        out = tmp_path / f"{len(results)}.gguf"
        convert(source, out, "q4_0", calibrate=text, method=method, threads=threads)
        with open_gguf(out) as file:
            results.append({name: tensor.data.tobytes() for name, tensor in file.tensors.items()})
            assert file.metadata.string("ggpy.quantize.method") == method
            assert file.metadata.string("ggpy.quantize.dataset") == "text.txt"
    assert results[0] == results[1] == results[2]
    assert (tmp_path / "0.gguf").read_bytes() == (tmp_path / "1.gguf").read_bytes()


def test_the_first_matrices_are_weighted_by_their_inputs(text: Path, tmp_path: Path):
    """Nothing but the embedding was quantized before them."""
    source = write_llama(tmp_path / "source.gguf", {"": "F32", "token_embd": "Q8_0"}, d_model=64, d_ff=96)
    convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text, method="imatrix", embedding_type="q8_0", output_type="q8_0")
    count_inputs(source, text, tmp_path / "imatrix.gguf", chunk_tokens=256)
    matrix = read_imatrix(tmp_path / "imatrix.gguf")
    with open_gguf(source) as before, open_gguf(tmp_path / "out.gguf") as after:
        for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"):
            values, format = before.tensors[name].dequantize(), after.tensors[name].format
            expected = encode_rows(values, format, importance=matrix.of(name, values.shape))
            assert after.tensors[name].data.tobytes() == expected.tobytes()
            assert expected.tobytes() != encode_rows(values, format).tobytes()


def test_experts_are_quantized_one_by_one(text: Path, tmp_path: Path):
    source = write_llama(tmp_path / "source.gguf", experts=4, used=1, d_model=64, d_ff=96)
    report = convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text, method="imatrix", measure_error=True)
    assert report.imatrix is not None
    assert "matrices 32 by imatrix" in report.imatrix or "by rtn" in report.imatrix  # an expert that no token came to has no importance
    errors = {tensor.name: tensor.relative_rmse or 0.0 for tensor in report.tensors if "_exps" in tensor.name}
    assert len(errors) == 6
    assert all(0.02 < error < 0.15 for error in errors.values())


def test_matrices_stored_as_one_are_whole(text: Path, tmp_path: Path):
    source = write_llama(tmp_path / "source.gguf", architecture="phi3", d_model=64, d_ff=96)
    report = convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text, method="imatrix", measure_error=True)
    assert all(tensor.relative_rmse < 0.15 for tensor in report.tensors if tensor.relative_rmse is not None)
    assert report.certificate is not None and report.certificate.passed


def test_tensors_that_are_in_their_format_already_stay(text: Path, tmp_path: Path):
    source = write_llama(tmp_path / "source.gguf", {"": "F32", "attn_v": "Q4_0"}, d_model=64, d_ff=96)
    convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text, method="imatrix", pure=True)
    with open_gguf(source) as before, open_gguf(tmp_path / "out.gguf") as after:
        assert before.tensors["blk.0.attn_v.weight"].data.tobytes() == after.tensors["blk.0.attn_v.weight"].data.tobytes()


def test_weights_beyond_half_precision_get_a_wider_type(text: Path, tmp_path: Path):
    weights = random_weights(CONFIG)
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = 1e9
    source = write_checkpoint(tmp_path / "checkpoint", weights=weights)
    report = convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text, method="imatrix", verify="bytes")
    assert {t.format for t in report.tensors if t.name == "blk.1.ffn_down.weight"} == {"F32"}
    assert any("blk.1.ffn_down.weight is stored as F32" in line for line in report.warnings)


def test_an_interrupted_conversion_goes_on_to_the_same_bytes(checkpoint: Path, text: Path, tmp_path: Path):
    options = {"type": "q4_0", "calibrate": text, "method": "imatrix"}
    convert(checkpoint, tmp_path / "whole.gguf", **options)

    def stop(progress) -> None:
        if progress.stage == "encode" and progress.done > progress.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "out.gguf", **options, resume=True, on_progress=stop)
    report = convert(checkpoint, tmp_path / "out.gguf", **options, resume=True)
    assert report.n_resumed > 0
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "whole.gguf"]


def test_progress_counts_every_weight(checkpoint: Path, text: Path, tmp_path: Path):
    seen = []
    convert(checkpoint, tmp_path / "out.gguf", "q4_0", calibrate=text, method="imatrix", on_progress=seen.append)
    steps = [progress for progress in seen if progress.stage == "calibrate"]
    assert steps[-1].done == steps[-1].total == sum(p.size for p in random_weights(CONFIG).values() if p.ndim == 2) - 264 * 64
    assert [p.what for p in steps[:3]] == ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best", "calibrate": "text"}, "method 'best' is none of rtn, imatrix"),
        ({"method": "imatrix"}, "method imatrix needs a text to calibrate on"),
        ({"method": "rtn", "calibrate": "text"}, "needs no text"),
        ({"calibrate": "none.txt"}, "none.txt: no such text"),
        ({"calibrate": "text", "calibration_tokens": 0}, "calibration tokens 0: expected 1 or more"),
        ({"calibration_tokens": 5}, "beside a text"),
        ({"calibrate": "text", "imatrix": "x.gguf"}, "imatrix and calibrate: give one of them"),
        ({"calibrate": "short"}, "short.txt: a calibration text of 5 tokens, expected at least one chunk of 128"),
    ],
)
def test_faults_of_arguments(checkpoint: Path, text: Path, tmp_path: Path, options: dict[str, str], message: str):
    (tmp_path / "short.txt").write_text("short", encoding="utf-8")
    names = {"text": text, "short": tmp_path / "short.txt"}
    options = {key: names.get(value, value) for key, value in options.items()}
    with pytest.raises(GGPyError, match=message):
        convert(checkpoint, tmp_path / "out.gguf", "q4_0", **options)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "out.gguf").exists()


def test_faults_of_models(text: Path, tmp_path: Path):
    weights = random_weights(CONFIG)
    weights["model.layers.0.mlp.up_proj.weight"][1, 2] = np.nan
    source = write_checkpoint(tmp_path / "nan", weights=weights)
    with pytest.raises(GGPyError, match=r"tensor blk\.0\.ffn_up\.weight: has weights that are not finite"):
        convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text)
    weights = random_weights(CONFIG)
    weights["model.layers.0.input_layernorm.weight"][:] = 1e9
    source = write_checkpoint(tmp_path / "large", weights=weights)
    with pytest.raises(GGPyError, match=r"tensor blk\.0\.attn_q\.weight: its squared inputs add up to"):
        convert(source, tmp_path / "out.gguf", "q4_0", calibrate=text)
    assert not (tmp_path / "out.gguf").exists()


def test_the_command(checkpoint: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.gguf"
    command = [
        str(checkpoint),
        "-o",
        str(out),
        "-t",
        "q4_0",
        "--calibrate",
        str(text),
        "--method",
        "imatrix",
        "--calibration-tokens",
        "512",
    ]
    assert main(command) == 0
    assert "calibrated on 512 tokens of text.txt for imatrix: matrices 14 by imatrix" in capsys.readouterr().out
    assert main([*command, "--force", "--method", "magic"]) == 1
    assert "method 'magic' is none of" in capsys.readouterr().err


def test_gptq_predicts_better_on_other_text(shared: Path, tmp_path: Path):
    stories = (shared / "texts" / "tinystories-sample.txt").read_text(encoding="utf-8")
    (tmp_path / "first.txt").write_text(stories[:60_000], encoding="utf-8")
    files = {"base": convert(DEMO, tmp_path / "base.gguf", "f32", verify="none").path}
    for method in ("imatrix", "gptq", "gptaq"):
        options = {"calibrate": tmp_path / "first.txt", "method": method, "calibration_tokens": 8192, "verify": "none"}
        files[method] = convert(DEMO, tmp_path / f"{method}.gguf", "q4_0", **options).path
    files["rtn"] = convert(DEMO, tmp_path / "rtn.gguf", "q4_0", verify="none").path
    models = {name: ggpy.load(path) for name, path in files.items()}
    ids = models["base"].tokenize(stories[-8000:], bos=True)[:400]
    expected = log_softmax(models["base"].logits(ids))
    kl = {name: float(kl_divergence(expected, log_softmax(model.logits(ids))).mean()) for name, model in models.items()}
    assert kl["gptq"] < 0.6 * kl["rtn"]
    assert kl["gptq"] < 0.65 * kl["imatrix"]
    assert kl["gptaq"] < 0.9 * kl["gptq"]
