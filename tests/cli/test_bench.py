"""`ggpy-bench` on the bundled model: the table and the JSON that are promised."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from ggpy.cli.bench import main


def test_json_is_as_documented(demo_gguf: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "-p", "16", "-n", "4", "--threads", "1,2", "-r", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"cpu", "available_threads", "lowering", "load", "ggpy"} <= report["machine"].keys()
    assert [(row["test"], row["threads"]) for row in report["results"]] == [("pp16", 1), ("tg4", 1), ("pp16", 2), ("tg4", 2)]
    for row in report["results"]:
        assert len(row["runs"]) == 3
        assert row["tokens_per_second"] == statistics.median(row["runs"]) > 0
        assert row["share_of_limit"] == pytest.approx(row["tokens_per_second"] / row["limit"])
        assert 0 < row["share_of_limit"] < 2  # above 1 only by chance: the limit is measured under the same load


def test_a_length_of_0_leaves_a_test_out(demo_gguf: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "-p", "0", "-n", "2", "--threads", "1", "-r", "1"]) == 0
    shown = capsys.readouterr()
    header, *rows = shown.out.splitlines()
    assert header.split()[:3] == ["test", "threads", "tokens/s"]
    assert [row.split()[0] for row in rows] == ["tg2"]
    assert shown.err.startswith("ggpy-bench: cpu ")


def test_a_bad_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    assert main([str(bad), "--json"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("ggpy-bench: error: ") and shown.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["-p", "-1"], ["--threads", "0"], ["--threads", "1,x"], ["-r", "0"]])
def test_bad_numbers_are_bad_usage(arguments: list[str]):
    with pytest.raises(SystemExit) as usage:
        main(["model.gguf", *arguments])
    assert usage.value.code == 2
