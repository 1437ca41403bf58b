"""`ggpy-bench` on the bundled model: the table and the JSON that are promised."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

import ggpy
from ggpy.bench import Result, _cache_cost, _Test
from ggpy.cli.bench import as_row, main


def test_json_is_as_documented(demo_gguf: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "-p", "16", "-n", "4", "--threads", "1,2", "-r", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"cpu", "available_threads", "lowering", "load", "ggpy"} <= report["machine"].keys()
    assert [(row["test"], row["threads"]) for row in report["results"]] == [("pp16", 1), ("tg4", 1), ("pp16", 2), ("tg4", 2)]
    assert "q4_k.linear" in report["kernels"] and "attention.attention" in report["kernels"]
    for row in report["results"]:
        assert len(row["runs"]) == 3 and len(row["rates"]) == 4
        assert row["tokens_per_second"] == statistics.median(row["runs"]) > 0
        assert row["limit"] == pytest.approx(statistics.median(row["rates"]) / row["per_token"])
        assert row["share_of_limit"] == pytest.approx(row["tokens_per_second"] / row["limit"])
        assert 0 < row["share_of_limit"] < 2  # above 1 only by chance: the limit is measured under the same load
        assert row["depth"] == 0 and row["cache_cost"] is None


def test_depth_is_measured_in_turns_with_an_empty_cache(demo_gguf: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "-p", "8", "-n", "3", "--depth", "100", "--threads", "1", "-r", "2", "--json"]) == 0
    rows = {row["test"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    assert list(rows) == ["pp8", "pp8@d100", "tg3", "tg3@d100"]
    assert [row["depth"] for row in rows.values()] == [0, 100, 0, 100]
    with ggpy.load(demo_gguf, threads=1, context=1) as model:
        position = model.network.shape.bytes_per_position()
        weights = sum(t.data.nbytes for t in model.file.tensors.values() if t.name != "token_embd.weight" or not _has_head(model))
    assert rows["tg3"]["per_token"] == weights + 2 * position
    assert rows["tg3@d100"]["per_token"] == weights + 102 * position
    assert rows["pp8"]["per_token"] == rows["pp8@d100"]["per_token"]
    assert isinstance(rows["tg3@d100"]["cache_cost"], float) and rows["pp8@d100"]["cache_cost"] is None
    assert rows["tg3"]["rates"] == rows["tg3@d100"]["rates"]


def _has_head(model: ggpy.Model) -> bool:
    return "output.weight" in model.file.tensors


def test_the_cost_of_the_cache_is_the_time_added_over_the_time_to_read_it():
    empty, deep = (_Test(name, depth, 1, per_token, lambda: None) for name, depth, per_token in (("tg1", 0, 1e9), ("tg1@d9", 9, 2e9)))
    runs = {"tg1": [10.0, 10.0, 5.0], "tg1@d9": [4.0, 5.0, 2.5]}  # 0.15, 0.1 and 0.2 s more; 1 GB more at 10 GB/s is 0.1 s
    assert _cache_cost(empty, deep, runs, [10e9, 10e9, 10e9, 10e9]) == pytest.approx(1.5)
    assert _cache_cost(empty, deep, runs, [10e9, 10e9, 10e9, 2e9]) == pytest.approx(1.2)


def test_a_row_shows_what_was_reached_of_what_the_machine_allows():
    result = Result("tg128@d8000", 2, 8000, (10.0, 12.0, 11.0), "B", 2e9, (30e9, 44e9, 40e9, 25e9), 0.25)
    assert as_row(result).split() == ["tg128@d8000", "2", "11.0", "10.0-12.0", "22.0", "GB/s", "35.0", "GB/s", "63%", "0.2"]
    prefill = Result("pp512", 1, 0, (100.0,), "op", 2e9, (400e9, 400e9), None)
    assert as_row(prefill).split() == ["pp512", "1", "100.0", "100.0-100.0", "200", "GOP/s", "400", "GOP/s", "50%"]


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
