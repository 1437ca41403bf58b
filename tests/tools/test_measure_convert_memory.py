"""A conversion takes less than twice the largest tensor and 200 MB; the tool that measures it says so, and when it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import make_checkpoint
import make_synthetic
import measure_convert_memory
import pytest

from .run_tool import run_tool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads the rusage of a process")

SHAPE = make_synthetic.Shape(1, 2048, 4096, 16, 4, 20000, 10000.0, 128, tied=False)


def test_a_model_of_some_size_stays_within_the_bound(tmp_path: Path):
    """240 MB of weights, of which the embedding has 82."""
    make_checkpoint.write(SHAPE, tmp_path / "Made", holes=True)
    done = run_tool("measure_convert_memory", tmp_path / "Made", "--types", "q8_0")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[2].split("|")[1:-1]]
    assert cells[0] == "q8_0" and cells[2:4] == ["82", "364"] and 60 < int(cells[1]) <= 364
    assert [path.name for path in tmp_path.iterdir()] == ["Made"]


def test_what_exceeds_the_bound_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    make_checkpoint.write(make_synthetic.Shape(1, 256, 512, 4, 2, 320, 10000.0, 128, tied=False), tmp_path / "Made")
    monkeypatch.setattr(measure_convert_memory, "BESIDE", 10**6)
    assert measure_convert_memory.main([str(tmp_path / "Made"), "--types", "f16"]) == 1
    assert "| f16 |" in capsys.readouterr().out


def test_the_largest_tensor_counts_as_it_is_stored(tmp_path: Path):
    make_checkpoint.write(SHAPE, tmp_path / "Made", holes=True)
    assert measure_convert_memory.largest_tensor(tmp_path / "Made") == 2 * 20000 * 2048
    assert measure_convert_memory.bound(10**9) == 2_200_000_000
