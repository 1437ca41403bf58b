"""`tools/compare_picker.py` compares files of equal size with their source, and says what was foretold."""

from __future__ import annotations

from pathlib import Path

import compare_picker
import numpy as np
import pytest

import ggpy
from ggpy.picker import sensitivity, speed

DEMO = Path(ggpy.__file__).parent / "demo"
STORY = (
    "Once upon a time there was a girl who had a small dog. One day the dog ran away and she was sad. Her mom helped her to find him. " * 8
)


def test_the_table_has_both_files_and_what_was_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for module in (sensitivity, speed):
        monkeypatch.setattr(module, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(compare_picker, "ROUNDS", 1)
    text = tmp_path / "story.txt"
    text.write_text(STORY, encoding="utf-8")
    arguments = [DEMO, "--text", text, "--types", "q4_k_m", "--chunks", "3", "--ctx", "64", "--threads", "1", "--scratch", tmp_path]
    monkeypatch.setattr("sys.argv", ["compare_picker", *map(str, arguments)])
    compare_picker.main()
    lines = capsys.readouterr().out.splitlines()
    plain, picked = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4])
    assert (plain[0], picked[0]) == ("Q4_K_M", "picked at Q4_K_M's size") and int(picked[1]) <= int(plain[1])
    assert float(picked[4].split(",")[0]) < float(plain[4].split(",")[0]) and "±" in picked[4]
    assert float(plain[5]) > 0 and plain[7].endswith("%")
    assert len([line for line in lines if line.startswith("|")]) == 9  # two tables: two files, three checks


def test_ratios_are_of_the_same_chunks():
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    assert compare_picker.paired_ratio(ours, theirs) == "0.50 ± 0.00 ×"
    assert compare_picker.paired_ratio(ours, theirs[::-1]) == "0.50 ± 0.58 ×"
