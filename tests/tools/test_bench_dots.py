"""`tools/bench_dots.py` measures what it says, in cache and from memory."""

from __future__ import annotations

import pytest

from .run_tool import run_tool

SMALL = ("--rows", 64, "--cols", 512, "--seconds", 0.02)


def test_a_line_for_each_format_and_batch_size():
    done = run_tool("bench_dots", "--format", "q4_k,f16", "--tokens", "1,9", "--memory", 1, *SMALL)
    assert done.returncode == 0, done.stderr
    header, names, *lines = done.stdout.splitlines()
    assert "GOP/s" in header and names.split()[:4] == ["format", "rows", "cols", "tokens"]
    rows = [line.split() for line in lines]
    assert [row[:4] for row in rows] == [[name, "64", "512", n] for name in ("Q4_K", "F16") for n in ("1", "9")]
    assert {len(row) for row in rows} == {10}
    n_bytes = {"Q4_K": 64 * 288, "F16": 64 * 1024}
    for name, _, _, _, microseconds, bandwidth, *_ in rows:
        assert float(bandwidth) == pytest.approx(n_bytes[name] / float(microseconds) / 1e3, rel=0.1, abs=0.11)


def test_without_memory_only_the_cache_is_measured():
    done = run_tool("bench_dots", "--format", "q4_k", "--tokens", "2", "--memory", 0, *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()[2].split()) == 7


def test_a_format_without_a_kernel_is_bad_usage():
    done = run_tool("bench_dots", "--format", "nvfp4")
    assert done.returncode == 2 and "no product kernel for NVFP4" in done.stderr
