"""`ggpy-eval` on the bundled model: figures on stdout, all of them in its JSON, mistakes in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ggpy.cli.eval import CONVENTIONS, KINDS, main
from ggpy.cli.model_file import DEMO
from ggpy.evaluate import store, tasks, windows
from ggpy.gguf import open_gguf

GENESIS = "In the beginning God created the heaven and the earth. And the earth was without form, and void. " * 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs leave what they found, in place of the user's cache directory."""
    monkeypatch.setattr(store, "cache_directory", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "evaluations"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(GENESIS, encoding="utf-8")
    return path


def test_json_has_every_figure(demo_gguf: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "--text", str(text), "--base", str(demo_gguf), "--ctx", "32", "--chunks", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["chunks"], found["context"], found["scored"]) == (2, 32, 2 * 15)
    assert 1 < found["perplexity"] < 50
    assert found["base_perplexity"] == pytest.approx(found["perplexity"], rel=1e-6)
    assert abs(found["kl_mean"]) < 1e-6 and found["kl_max"] < 1e-5 and (found["top1"], found["top5"]) == (1, 1)
    assert (found["convention"], found["stride"], found["known_chunks"]) == ("llama.cpp", None, 0)
    assert {"perplexity_error", "kl_error", "kl_median", "kl_p90", "kl_p99", "kl_p999", "ratio", "ratio_error", "delta_p"} < found.keys()
    assert len(found["worst"]) == 5 and {"before", "token", "choice", "base_choice", "divergence"} < found["worst"][0].keys()


def test_perplexity_is_low_on_what_was_learnt_and_high_on_noise(demo_gguf: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "--text", str(text), "--ctx", "32"]) == 0
    shown = capsys.readouterr()
    learnt = float(shown.out.split()[1])
    text.write_text("zq xj vvk wq " * 60, encoding="utf-8")
    assert main([str(demo_gguf), "--text", str(text), "--ctx", "32"]) == 0
    noise = float(capsys.readouterr().out.split()[1])
    assert math.log(noise) > math.log(learnt) + 1
    assert "KL" not in shown.out


def test_every_byte_of_the_text_counts(demo_gguf: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    """Line endings of Windows are not read as others: figures are to compare with those of llama-perplexity, which reads bytes."""
    chunks = []
    for ending in (b"\n", b"\r\n"):
        text.write_bytes(ending.join([b"a"] * 200))
        assert main([str(demo_gguf), "--text", str(text), "--ctx", "16", "--json"]) == 0
        chunks.append(json.loads(capsys.readouterr().out)["chunks"])
    assert chunks[1] > chunks[0]


def test_a_second_run_takes_what_the_first_left(demo_gguf: Path, text: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    options = [str(demo_gguf), "--text", str(text), "--base", str(demo_gguf), "--ctx", "32", "--chunks", "2"]
    assert main([*options, "--no-cache"]) == 0
    assert not folder.exists()
    capsys.readouterr()
    assert main(options) == 0
    first = capsys.readouterr().out
    assert "earlier run" not in first and len(list(folder.iterdir())) == 4
    assert main(options) == 0
    second = capsys.readouterr().out
    assert "2 of them scored by an earlier run" in second
    figures = [[line for line in shown.splitlines() if not line.startswith("scored")] for shown in (first, second)]
    assert figures[0] == figures[1] and figures[0][0].startswith("perplexity") and "where they differ most" in first


def test_log_probabilities_are_kept_where_asked(demo_gguf: Path, text: Path, folder: Path, tmp_path: Path):
    options = [str(demo_gguf), "--text", str(text), "--base", str(demo_gguf), "--ctx", "32", "--chunks", "3"]
    assert main([*options, "--base-cache", str(tmp_path / "kept")]) == 0
    assert len(list((tmp_path / "kept").iterdir())) == len(list(folder.iterdir())) == 3


def test_the_conventions_are_told_apart(demo_gguf: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    assert tuple(windows.CONVENTIONS) == CONVENTIONS
    options = [str(demo_gguf), "--text", str(text), "--ctx", "32", "--chunks", "2"]
    assert main([*options, "--convention", "huggingface", "--stride", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["convention"], found["stride"], found["scored"]) == ("huggingface", 8, 31 + 8)
    assert main([*options, "--stride", "8"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_base_given_as_a_checkpoint_is_not_quantized(demo_gguf: Path, text: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "--text", str(text), "--base", str(DEMO), "--ctx", "32", "--chunks", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert 0.0001 < json.loads(shown.out)["kl_mean"] < 0.5
    base = json.loads(shown.out)["base"]
    with open_gguf(base) as file:
        assert {tensor.format.name for tensor in file.tensors.values()} <= {"F32", "F16", "BF16"}


def test_a_task_is_done(demo_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    task = tmp_path / "task.jsonl"
    lines = [{"prompt": "In the beginning God created the", "choices": ["zzz", "heaven"], "answer": i} for i in (0, 1, 1)]
    task.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert main([str(demo_gguf), "--task", str(task), "--json", "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["examples"], found["accuracy"], found["normalised"]) == ("choice", 2, 0.5, 0.5)
    assert len(found["accuracy_interval"]) == len(found["outcomes"]) == 2 and found["known_examples"] == 0
    assert main([str(demo_gguf), "--task", str(task)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("accuracy         66.67%") and "3 of them answered in an earlier run" in shown
    assert "line 1: 'heaven', expected 'zzz'" in shown
    assert KINDS == tasks.KINDS
    task.write_text('{"prompt": "x", "choices": ["a"], "answer": 0}', encoding="utf-8")
    assert main([str(demo_gguf), "--task", str(task)]) == 1
    error = capsys.readouterr().err
    assert "task.jsonl:1: choices is ['a'], expected 2 to" in error and error.count("\n") == 1


def test_mistakes_are_one_line(demo_gguf: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "--text", str(tmp_path / "absent.txt")]) == 1
    assert "absent.txt" in capsys.readouterr().err
    text.write_text("Too short.", encoding="utf-8")
    assert main([str(demo_gguf), "--text", str(text)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ggpy-eval: error: the text has") and error.count("\n") == 1
    for options in ([], ["--text", str(text), "--task", str(text)]):
        assert main([str(demo_gguf), *options]) == 1
        assert "either --text or --task" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main([str(demo_gguf), "--text", str(text), "--ctx", "2"])
    assert usage.value.code == 2
