"""`tools/compare_quantize.py` times what it says, and checks that both sides wrote the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import compare_quantize
import make_synthetic
import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter.recipes import find_recipe

from .run_tool import run_tool

SHAPE = make_synthetic.Shape(2, 256, 512, 4, 2, 320, 10000.0, 128, tied=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "input.gguf"
    make_synthetic.write(SHAPE, find_recipe("f32"), path)
    return path


def stand_in(path: Path, type: str) -> Path:
    """A program with llama-quantize's arguments that writes `type`, or what is asked for if it is empty."""
    path.write_text(
        f"""#!{sys.executable}
import sys, ggpy
source, out, type, threads = sys.argv[1:]
assert threads == "1"
ggpy.convert(source, out, {type!r} or type, force=True)
""",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for llama-quantize is a script with a #! line")
@pytest.mark.parametrize(("type", "verdict"), [("", "the same"), ("q4_0", "**differ**")])
def test_programs_are_compared_and_their_files(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str, verdict: str):
    monkeypatch.setenv("PYTHONPATH", str(Path(compare_quantize.__file__).parents[1]))
    program = stand_in(tmp_path / "llama-quantize", type)
    options = ["--types", "q8_0", "--threads", 1, "--rounds", 2, "--no-encoders", "--ggpy-args=--no-verify"]
    done = run_tool("compare_quantize", model, "--llama-quantize", program, *options)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[0] == ["type", "ggpy, MB/s", "llama.cpp, MB/s", "ratio", "bytes"]
    assert len(rows) == 3 and rows[2][0] == "q8_0" and rows[2][4] == verdict
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.gguf", "llama-quantize"]


def test_files_differ_by_a_format_or_a_byte(model: Path, tmp_path: Path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model.read_bytes())
    assert compare_quantize.same_tensors(model, copy)
    with copy.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x99")
    assert not compare_quantize.same_tensors(model, copy)
    make_synthetic.write(SHAPE, find_recipe("f16"), copy)
    assert not compare_quantize.same_tensors(model, copy)


def test_rows_are_divided_among_threads():
    fmt, calls = BLOCKS["Q8_0"], []
    values, out = np.zeros((7, 64), np.float32), np.zeros((7, 136), np.uint8)

    class Library:
        def ggml_quantize_chunk(self, *arguments: object) -> None:
            calls.append(arguments)

    compare_quantize.ggml_quantize(Library(), fmt, values, out, 2, None)  # pyright: ignore[reportArgumentType]
    addresses = (values.ctypes.data, out.ctypes.data)
    assert sorted(calls) == [(8, *addresses, 0, 3, 64, None), (8, *addresses, 192, 4, 64, None)]
    importance = np.ones(64, np.float32)
    compare_quantize.ggml_quantize(Library(), fmt, values, out, 1, importance)  # pyright: ignore[reportArgumentType]
    assert calls[2:] == [(8, *addresses, 0, 7, 64, importance.ctypes.data)]


def test_encoders_get_the_same_importance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare_quantize, "ROWS", 3)
    monkeypatch.setattr(compare_quantize, "COLS", 256)
    fmt, seen = BLOCKS["Q4_0"], []

    def encode_weighted(library, fmt, values, out, threads, importance):
        assert fmt.encode_weighted is not None
        out[:] = fmt.encode_weighted(values, importance)
        seen.append(importance)

    monkeypatch.setattr(compare_quantize, "ggml_quantize", encode_weighted)
    args = argparse.Namespace(importance=True, threads=1, rounds=1)
    times, equal = compare_quantize.compare_encoders(args, None, fmt)  # pyright: ignore[reportArgumentType]
    assert equal and len(times["ggpy"]) == len(times["llama.cpp"]) == 1 and seen[0].shape == (256,)


def test_what_is_to_be_compared_must_be_there(capsys: pytest.CaptureFixture[str]):
    for arguments, message in (
        ([], "say which INPUT.gguf, or --formats"),
        (["nowhere.gguf"], "no file nowhere.gguf"),
        (["--formats", "Q9"], "no block format Q9"),
    ):
        with pytest.raises(SystemExit):
            compare_quantize.main([*arguments, "--llama-quantize", "x"])
        assert message in capsys.readouterr().err


def test_ratios_are_of_speeds():
    times = {"ggpy": [1.0, 2.0, 1.0], "llama.cpp": [2.0, 2.0, 3.0]}
    assert compare_quantize.row("q8_0", times, True, 1e9) == ["q8_0", "1000 [500–1000]", "500 [333–500]", "2.00 [1.00–3.00]", "the same"]


def test_without_a_library_the_encoders_cannot_be_compared(tmp_path: Path):
    with pytest.raises(SystemExit, match="no libggml-base beside"):
        compare_quantize.load_library(tmp_path / "llama-quantize")
