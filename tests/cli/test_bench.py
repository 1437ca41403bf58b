"""`ggpy-bench` on the bundled model: the table and the JSON that are promised."""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ggpy
from ggpy.bench import Result, _Bench, _cache_cost, _measure, _Test
from ggpy.cli.bench import as_row, main
from tests.runtime.tiny import write_llama


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
    assert isinstance(rows["tg3@d100"]["cache_cost"], float) and rows["pp8@d100"]["cache_cost"] is None


def test_what_a_token_needs(demo_gguf: Path):
    with ggpy.load(demo_gguf, threads=1, context=1) as model:
        bench = _Bench(model, 8, 100)
        position = model.network.shape.bytes_per_position()
        table, tied = model.file.tensors.values(), "output.weight" not in model.file.tensors
        weights = sum(t.data.nbytes for t in table if tied or t.name != "token_embd.weight")
        assert bench._decode(0, 3).n_bytes == weights + 2 * position
        assert bench._decode(100, 3).n_bytes == weights + 102 * position
        assert bench._prefill(100, 8).n_bytes == (weights + 108 * position) / 8
        matrices = sum(t.n_values for t in table if len(t.shape) == 2 and t.name.startswith("blk."))
        assert bench._prefill(0, 8).operations == bench._prefill(100, 8).operations == 2 * matrices
        assert bench._decode(0, 3).operations == 2 * matrices + 2 * model.config.n_vocab * model.config.d_model
        with ExitStack() as stack:
            assert bench._decode_together(4, 3, stack).n_bytes == weights / 4 + 2 * position
        bench.close()


def test_of_experts_those_count_that_tokens_go_to(tmp_path: Path):
    path = write_llama(tmp_path / "model.gguf", "F32", experts=4, used=1)
    with ggpy.load(path, threads=1, context=1) as model:
        bench, table = _Bench(model, 8, 0), model.file.tensors.values()
        position = model.network.shape.bytes_per_position()
        stacks = sum(t.data.nbytes for t in table if len(t.shape) == 3)
        others = sum(t.data.nbytes for t in table if len(t.shape) < 3)
        assert stacks > others / 4
        assert bench._decode(0, 1).n_bytes == pytest.approx(others + stacks / 4 + position)
        assert bench._prefill(0, 2).n_bytes == pytest.approx((others + stacks * (1 / 4 + 3 / 16)) / 2 + position)
        matrices = sum(t.n_values for t in table if len(t.shape) == 2 and t.name.startswith("blk."))
        assert bench._prefill(0, 2).operations == pytest.approx(2 * matrices + 2 * stacks / 4 / 4)
        with ExitStack() as stack:
            assert bench._decode_together(2, 1, stack).n_bytes == pytest.approx((others + stacks * (1 / 4 + 3 / 16)) / 2 + position)
        bench.close()


def test_the_cost_of_the_cache_is_the_time_added_over_the_time_to_read_it():
    empty, deep = (_Test(name, depth, 1, 1, n, 1, lambda: None) for name, depth, n in (("tg1", 0, 1e9), ("tg1@d9", 9, 2e9)))
    runs = {"tg1": [10.0, 10.0, 5.0], "tg1@d9": [4.0, 5.0, 2.5]}  # 0.15, 0.1 and 0.2 s more; 1 GB more at 10 GB/s is 0.1 s
    assert _cache_cost(empty, deep, runs, [10e9, 10e9, 10e9, 10e9]) == pytest.approx(1.5)
    assert _cache_cost(empty, deep, runs, [10e9, 10e9, 10e9, 2e9]) == pytest.approx(1.2)


def test_sequences_are_decoded_together(demo_gguf: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(demo_gguf), "-p", "0", "-n", "5", "--batch", "3", "--threads", "1", "-r", "2", "--json"]) == 0
    one, three = json.loads(capsys.readouterr().out)["results"]
    assert (one["test"], one["sequences"], one["gain"]) == ("tg5", 1, None)
    assert (three["test"], three["sequences"]) == ("tg5x3", 3)
    ratios = [a / b for a, b in zip(three["runs"], one["runs"], strict=True)]
    assert three["gain"] == pytest.approx(statistics.median(ratios)) and three["gain"] > 0


def test_the_limit_is_what_takes_longer():
    """A pass of few tokens waits for memory, one of many for products: the same rates limit them by one or the other."""
    limits: Any = {"B": lambda: 10e9, "op": lambda: 100e9}
    tests = [_Test(name, 0, 1, 1, n_bytes, 2e9, lambda: None) for name, n_bytes in (("few", 1e9), ("many", 1e6))]
    few, many = _measure(tests, limits, 1, 2)
    assert (few.unit, few.limit, many.unit, many.limit) == ("B", 10.0, "op", 50.0)


def test_a_row_shows_what_was_reached_of_what_the_machine_allows():
    result = Result("tg128@d8000", 2, 8000, 1, (10.0, 12.0, 11.0), "B", 2e9, (30e9, 44e9, 40e9, 25e9), 0.25)
    assert as_row(result).split() == ["tg128@d8000", "2", "11.0", "10.0-12.0", "22.0", "GB/s", "35.0", "GB/s", "63%", "0.2"]
    prefill = Result("pp512", 1, 0, 1, (100.0,), "op", 2e9, (400e9, 400e9), None)
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
