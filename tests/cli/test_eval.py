"""`ggpy-eval` on the bundled model: figures on stdout, all of them in its JSON, mistakes in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ggpy.cli.eval import main

GENESIS = "In the beginning God created the heaven and the earth. And the earth was without form, and void. " * 4


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
    assert found["base_perplexity"] == found["perplexity"]
    assert (found["kl_mean"], found["kl_max"], found["top1"]) == (0, 0, 1)


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


def test_mistakes_are_one_line(demo_gguf: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "--text", str(tmp_path / "absent.txt")]) == 1
    assert "absent.txt" in capsys.readouterr().err
    text.write_text("Too short.", encoding="utf-8")
    assert main([str(demo_gguf), "--text", str(text)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ggpy-eval: error: the text has") and error.count("\n") == 1
    with pytest.raises(SystemExit) as usage:
        main([str(demo_gguf), "--text", str(text), "--ctx", "2"])
    assert usage.value.code == 2
