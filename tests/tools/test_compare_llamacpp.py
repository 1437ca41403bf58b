"""Ratios, warnings and tables of `tools/compare_llamacpp.py`; and the whole of it with a llama-bench that answers from a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import comparison
import llama_module_bench
import llama_peers
import pytest
from compare_llamacpp import fastest, lowering, table
from llama_peers import Peer, find_peer, host_features, warning

from ggpy.simd.target import LOWERINGS

from .run_tool import run_tool

ROUNDS = {
    "ggpy": {("tg128", 1): [10.0, 12.0, 30.0], ("pp512", 1): [400.0, 400.0, 400.0]},
    "native default": {("tg128", 1): [5.0, 8.0, 10.0], ("pp512", 1): [100.0, 100.0, 90.0]},
    "native norepack": {("tg128", 1): [8.0, 8.0, 10.0], ("pp512", 1): [50.0, 200.0, 50.0]},
}


def test_the_ratio_is_to_the_fastest_mode_of_each_test_round_by_round():
    assert fastest(ROUNDS, ("pp512", 1)) == "native default"
    shares = {("tg128", 1): [0.5, 0.6, 0.9], ("pp512", 1): [0.25]}
    lines = table("m.gguf", ROUNDS, shares).splitlines()
    header = "| file | test | threads | ggpy tok/s | native default tok/s | native norepack tok/s | ratio | of the limit |"
    assert lines[:2] == [header, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    assert lines[2] == "| m.gguf | pp512 | 1 | 400 | 100 | 50.0 | 4.00 [4.00–4.44] to native default | 25% |"
    assert lines[3].startswith("|  | tg128 | 1 | 12.0 | 8.00 | 8.00 | ") and lines[3].endswith("| 60% |")


def test_equal_peers_leave_the_first_as_rival_and_a_lone_peer_is_not_named():
    alone = {name: ROUNDS[name] for name in ("ggpy", "native norepack")}
    assert "| 1.50 [1.25–3.00] |" in table("m", alone, {key: [1.0] for key in alone["ggpy"]})


def test_spread_and_digits():
    assert comparison.spread([1.0, 3.0, 2.0], 1) == "2.0 [1.0–3.0]" and comparison.spread([1.234], 2) == "1.23"
    assert [comparison.digits(value) for value in (874.2, 99.9, 8.1)] == [0, 1, 2]


def test_each_round_begins_with_another():
    assert [comparison.in_turn(["a", "b", "c"], turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert sorted(comparison.in_turn(["a", "b", "c"], 1)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"n_prompt": 512, "n_gen": 0, "n_depth": 0}, "pp512"),
        ({"n_prompt": 0, "n_gen": 128}, "tg128"),
        ({"n_prompt": 0, "n_gen": 128, "n_depth": 8000}, "tg128@d8000"),
    ],
)
def test_llama_bench_rows_get_the_names_of_ours(row: dict[str, int], name: str):
    assert llama_peers.test_name(row) == name


def test_a_build_without_instructions_of_the_host_is_warned_of():
    host = host_features("processor: 0\nflags\t\t: fpu avx avx2 fma f16c bmi2 avx512f avx512_vnni\nbugs: none\n")
    assert host == ["avx", "avx2", "f16c", "fma", "bmi2", "avx512", "avx512_vnni"]
    assert host_features("Features\t: fp asimd asimddp i8mm\n") == ["neon", "dotprod", "matmul_int8"]
    peer = Peer("old", "llama-bench")
    assert warning(peer, host, host) is None
    said = warning(peer, host, host[:-2])
    assert said and said.startswith("WARNING: old was built without avx512, avx512_vnni, which this CPU has")
    assert "does not say" in str(warning(peer, host, []))
    assert warning(peer, host, host[:-2], held_to="avx2") is None  # ggpy does without them, too
    assert "without f16c, which" in str(warning(peer, host, ["avx", "avx2", "fma", "bmi2"], held_to="avx2"))


def test_every_lowering_is_known_and_an_environment_chooses_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GGPY_SIMD", raising=False)
    assert lowering(["GGPY_SIMD=portable"]) == "portable"
    assert lowering(["NUMBA_CPU_NAME=haswell", "NUMBA_CPU_FEATURES="]) == "avx2"
    assert {"avx2", "avx-vnni", "portable", "neon-dot"} <= llama_peers.LEFT_UNUSED.keys() <= set(LOWERINGS)


def test_features_are_read_from_system_info():
    assert llama_peers.features_in_words("CPU : AVX2 = 1 | F16C = 1 | AVX512 = 0 | REPACK = 1 | ") == ["avx2", "f16c"]


def test_a_peer_that_is_not_there_is_one_line():
    with pytest.raises(SystemExit, match="no-such-file: no program that can be run"):
        find_peer("x=no-such-file", False)
    with pytest.raises(SystemExit, match="numpy is no module that this can measure"):
        find_peer("numpy", True)
    assert find_peer("wheel=xllamacpp", True) == Peer("wheel", "xllamacpp") and find_peer("llama_cpp", True).name == "llama_cpp"


def test_programs_that_fail_are_one_line():
    with pytest.raises(SystemExit, match=r"failed \(3\): too bad"):
        comparison.run_text([sys.executable, "-c", "import sys; print('long story\\ntoo bad', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(SystemExit, match="printed no JSON"):
        comparison.run_json([sys.executable, "-c", "print('hello')"])
    with pytest.raises(SystemExit, match="nowhere/llama-bench: No such file"):
        comparison.run_text(["nowhere/llama-bench"])


def test_the_whole_comparison(demo_gguf: Path, llama_bench: Path, tmp_path: Path):
    figures = tmp_path / "figures.json"
    options = ["-p", 8, "-n", 2, "--depth", 16, "--threads", "1", "--rounds", 2, "--json", figures]
    done = run_tool("compare_llamacpp", demo_gguf, "--llama-bench", f"native={llama_bench}", *options)
    assert done.returncode == 0, done.stderr
    assert "**WARNING: native does not say what of the CPU it uses" in done.stdout and "WARNING: native" in done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[1] for row in rows[2:]] == ["pp8", "pp8@d16", "tg2", "tg2@d16"]
    assert all(row[4:6] == (["100", "50.0"] if row[1].startswith("pp") else ["10.0", "5.00"]) for row in rows[2:])
    report = json.loads(figures.read_text())
    assert {speed["contestant"] for speed in report["speeds"]} == {"ggpy", "native default", "native norepack"}
    assert all(len(speed["runs"]) == 2 for speed in report["speeds"]) and len(report["ggpy"]) == 2


def test_nobody_to_compare_with_is_bad_usage(demo_gguf: Path):
    assert run_tool("compare_llamacpp", demo_gguf).returncode == 2


class Clock:
    """Stands in for a module: seconds grow with the tokens evaluated."""

    def __init__(self, model: str, context: int, threads: int, options: object):
        self.threads = threads

    def prefill(self, ids: list[int], depth: int) -> float:
        return (len(ids) - depth) / (100.0 * self.threads)

    def decode(self, ids: list[int], depth: int) -> float:
        return (len(ids) - depth) / (10.0 * self.threads)


def test_modules_are_measured_as_llama_bench_does_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(llama_module_bench.ENGINES, "llama_cpp", Clock)
    monkeypatch.setattr(
        sys,
        "argv",
        ["llama_module_bench", "llama_cpp", "-m", "m.gguf", "-p", "5", "-n", "3", "-d", "0,7", "-t", "1,2", "-r", "2", "-o", "json"],
    )
    llama_module_bench.main()
    rows = json.loads(capsys.readouterr().out)
    speeds = {(llama_peers.test_name(row), row["n_threads"]): row["avg_ts"] for row in rows}
    assert speeds == {
        (name, threads): pytest.approx((100 if name[0] == "p" else 10) * threads)
        for name in ("pp5", "tg3", "pp5@d7", "tg3@d7")
        for threads in (1, 2)
    }
