"""`ggpy xray` on a terminal and as JSON; names from a file stay what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ggpy.cli.xray import main

from .conftest import DEMO, Make


def test_tables(converted: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(converted), "--base", str(DEMO), "--top", "3"]) == 0
    shown = capsys.readouterr().out
    assert "tensors carry" in shown and "by kind" in shown and "3 of 29" in shown and "worst blocks" in shown
    assert main([str(converted)]) == 0
    assert "entropy" in capsys.readouterr().out


def test_json(converted: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(converted), "--base", str(DEMO), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["tensors"]) == 29 and found["bits_per_weight"] > 4
    assert {"relative_rmse", "snr", "cosine", "share", "worst"} <= found["tensors"][3]["error"].keys()


def test_hostile_names(make: Make, capsys: pytest.CaptureFixture[str]):
    weights = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    name = "[red]x[/red]\x1b[31m<b>"
    path = make("q.gguf", {name: ("Q4_0", weights)})
    assert main([str(path)]) == 0
    shown = capsys.readouterr().out
    assert "[red]x[/red]\\x1b[31m<b>" in shown and "\x1b" not in shown


@pytest.mark.parametrize("arguments", [["{file}", "--base", "{missing}"], ["{missing}"], ["{file}", "--imatrix", "{file}"]])
def test_errors_are_one_line(arguments: list[str], converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    places = {"file": str(converted), "missing": str(tmp_path / "nothing")}
    assert main([argument.format(**places) for argument in arguments]) == 1
    shown = capsys.readouterr()
    assert not shown.out and shown.err.startswith("ggpy-xray: error: ") and shown.err.count("\n") == 1
