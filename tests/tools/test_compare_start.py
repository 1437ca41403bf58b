"""`tools/compare_start.py` measures whole processes, in turns, and says when one fails."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import compare_start
import pytest

from tests.runtime.tiny import write_llama

from .run_tool import run_tool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="waits for processes as POSIX does")


@pytest.fixture
def llama_completion(tmp_path: Path) -> Path:
    """A program that takes llama-completion's options and a known time."""
    script = tmp_path / "llama-completion"
    script.write_text(f"#!{sys.executable}\nimport sys, time\nassert sys.argv[1] == '-m' and '-no-cnv' in sys.argv\ntime.sleep(0.2)\n")
    script.chmod(0o755)
    return script


@pytest.mark.slow
def test_a_table_with_both_and_with_a_first_start(tmp_path: Path, llama_completion: Path):
    model = write_llama(tmp_path / "model.gguf", "Q8_0")
    run = run_tool("compare_start", model, "--llama-completion", llama_completion, "--rounds", 3, "--first", 1)
    assert run.returncode == 0, run.stderr
    rows = {cells[1].strip(): cells for cells in (line.split("|") for line in run.stdout.splitlines()[2:])}
    assert list(rows) == ["ggpy", "llama.cpp", "ggpy, first start"]
    wall = {name: float(cells[2].split()[0]) for name, cells in rows.items()}
    assert wall["llama.cpp"] > 0.2 and wall["ggpy, first start"] > wall["ggpy"] + 0.5  # numba alone takes longer to import
    assert 0.5 < float(rows["ggpy"][5].split()[0]) / (wall["ggpy"] / wall["llama.cpp"]) < 2


def test_time_and_memory_of_a_process():
    began = time.perf_counter()
    start = compare_start.run([sys.executable, "-c", "x = bytearray(b'1') * 50_000_000; import time; time.sleep(0.3)"], {})
    assert 0.3 < start.wall <= time.perf_counter() - began
    assert start.cpu < start.wall and start.memory > 50e6


def test_a_failure_is_told(tmp_path: Path):
    run = run_tool("compare_start", tmp_path / "none.gguf", "--rounds", 1)
    assert run.returncode == 1 and "none.gguf: No such file or directory" in run.stderr
