"""ggpy-convert: what it shows, where, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ggpy
from ggpy.blocks import BLOCKS
from ggpy.cli.convert import main
from ggpy.converter.recipes import RECIPES
from ggpy.gguf import GGUFWriter, open_gguf

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(ggpy.__file__).parents[1])}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A GGUF file of one matrix and one norm."""
    path = tmp_path / "tiny-f32.gguf"
    values = np.random.default_rng(0).standard_normal((4, 288), np.float32)
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("llama.block_count", 1)
        writer.add_tensor("blk.0.attn_q.weight", values.shape, BLOCKS["F32"])
        writer.add_tensor("output_norm.weight", (288,), BLOCKS["F32"])
        writer.write_tensor("blk.0.attn_q.weight", values)
        writer.write_tensor("output_norm.weight", np.ones(288, np.float32))
    return path


def test_it_converts_and_sums_up(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "out.gguf"
    assert main([str(source), "-o", str(target), "--error"]) == 0
    out = capsys.readouterr().out
    with open_gguf(target) as file:
        assert file.tensors["blk.0.attn_q.weight"].format.name == "Q5_0"
    tables, summary = out.split("\n\n")
    assert tables.splitlines()[1].startswith("blk.0.attn_q.weight  F32   Q5_0") and "%" in tables
    assert "1 tensor is Q5_0, not Q4_K" in summary and "read back and found as meant" in summary and str(target) in summary


def test_json_is_json_alone(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(source), "-o", str(tmp_path / "out.gguf"), "-t", "Q8_0", "--json", "--error", "--no-verify"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["type"] == "Q8_0" and found["verified"] is False and found["tensors"][0]["format"] == "Q8_0"
    assert 0 < found["tensors"][0]["relative_rmse"] < 0.01


def test_the_default_name_is_in_the_current_directory(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main([str(source), "-t", "f16"]) == 0
    assert [p.name for p in elsewhere.iterdir()] == ["tiny-F16.gguf"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["SOURCE", "-t", "q3"], "type 'q3' is not one ggpy writes"),
        (["nothing-here"], "nothing-here: no such directory or file, and no Hub repository"),
        (["SOURCE", "-o", "SOURCE", "--force"], "is the input"),
        (["FOLDER"], "no config.json"),
        (["SOURCE", "-o", "SOURCE.copy"], "exists already"),
    ],
)
def test_errors_are_one_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str):
    (tmp_path / "folder").mkdir()
    Path(f"{source}.copy").write_bytes(b"mine")
    filled = [a.replace("SOURCE", str(source)).replace("FOLDER", str(tmp_path / "folder")) for a in arguments]
    assert main(filled) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert captured.err.startswith("ggpy-convert: error: ") and line in captured.err


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--threads", "0"], ["a", "--threads", "x"], ["a", "--nonsense"]])
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and capsys.readouterr().out == ""


def test_strict_refuses_what_is_only_warned_of(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(source), "-o", str(tmp_path / "q8.gguf"), "-t", "q8_0"]) == 0
    again = [str(tmp_path / "q8.gguf"), "-o", str(tmp_path / "q4.gguf"), "-t", "q4_0"]
    assert main([*again, "--strict"]) == 1 and not (tmp_path / "q4.gguf").exists()
    assert main(again) == 0
    assert "ggpy-convert: warning: quantizing again what is Q8_0 already" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    script = (
        "import sys\n"
        "try: from ggpy.cli.convert import main; main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numba', 'llvmlite', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_terminal_sees_a_bar_and_the_pipe_the_summary(source: Path, tmp_path: Path):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ggpy", "convert", source, "-o", tmp_path / "out.gguf", "-t", "q8_0"]
    done = subprocess.run(
        command, env=ENVIRONMENT | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=follower, text=True, encoding="utf-8", check=True
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the end, as Linux tells it
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert b"encode" in shown and b"%" in shown and b"\x1b[" in shown
    assert "read back and found as meant" in done.stdout and "\x1b" not in done.stdout


def test_without_the_hubs_client_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["owner/model"]) == 1
    assert "pip install 'ggpy[hub]'" in capsys.readouterr().err


def test_types_of_single_tensors_are_chosen(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [str(source), "-o", str(tmp_path / "out.gguf"), "--tensor-type", "nothing=q4_0", "--tensor-type", r"blk\.\d+\.attn=q8_0"]
    assert main(arguments) == 0
    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.tensors["blk.0.attn_q.weight"].format.name == "Q8_0"
    assert "warning: tensor type nothing=Q4_0 fits no matrix of the model" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["attn_v", "=q8_0", "attn_v="])
def test_a_tensor_type_is_a_pattern_and_a_type(capsys: pytest.CaptureFixture[str], text: str):
    with pytest.raises(SystemExit, match="2"):
        main(["model", "--tensor-type", text])
    assert "is not PATTERN=TYPE, as in attn_v=q8_0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--tensor-type", "attn_v=q9"], "tensor type 'attn_v=q9': 'q9' is no type that ggpy encodes, expected one of F32,"),
        (["--tensor-type", "attn_(v=q8_0"], "tensor type 'attn_(v=q8_0': not a regular expression: "),
        (["--output-tensor-type", "iq3_s"], "output type: 'iq3_s' is no type that ggpy encodes"),
        (["--imatrix", "SOURCE"], "no importance matrix (no tensor is called NAME.in_sum2)"),
        (["--imatrix", "missing.dat"], "missing.dat: No such file or directory"),
        (["-t", "iq3_m"], "type IQ3_M cannot be written: ggpy reads IQ3_S blocks but has no encoder of them; nearest is Q3_K_M or IQ4_XS"),
    ],
)
def test_bad_choices_are_one_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str):
    filled = [argument.replace("SOURCE", str(source)) for argument in arguments]
    assert main([str(source), "-o", str(tmp_path / "out.gguf"), *filled]) == 1
    captured = capsys.readouterr()
    assert line in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "out.gguf").exists()


def test_help_lists_every_type(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.replace(",", " ").replace(";", " ").split()
    assert {name.lower() for name in RECIPES} <= set(shown)


def test_a_type_is_explained_without_a_model(capsys: pytest.CaptureFixture[str]):
    assert main(["--explain", "q4_k"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].startswith("Q4_K_M: ") and lines[4].startswith("on the Llama 3 8B shape: 4.894 bits per weight")


def test_a_type_is_explained_for_a_model(source: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--explain", "q4_k_m", str(source)]) == 0
    assert "Q5_0 where rows are no multiple of 256" in capsys.readouterr().out


def test_all_types_are_explained_in_a_table(source: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--explain", "all"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[2:]] == list(RECIPES)
    assert main(["--explain", "all", str(source)]) == 1
    assert "name one type" in capsys.readouterr().err


def test_a_plan_is_shown_and_nothing_is_written(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before, target = sorted(tmp_path.iterdir()), tmp_path / "out.gguf"
    assert main([str(source), "-o", str(target), "--plan", "--tensor-type", "nothing=q8_0"]) == 0
    shown = capsys.readouterr()
    assert "Q4_K_M: " in shown.out and "memory to run it" in shown.out and "fits no matrix" in shown.err
    assert main([str(source), "-o", str(target), "--plan", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert sorted(tmp_path.iterdir()) == before
    assert main([str(source), "-o", str(target)]) == 0
    assert planned["file_bytes"] == target.stat().st_size


def test_without_a_source_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["--plan"])
    assert "the following arguments are required: SRC" in capsys.readouterr().err
