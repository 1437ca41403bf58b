"""`tools/compare_contended.py` keeps processors busy for as long as it measures, and no longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import compare_contended
import pytest

from .run_tool import TOOLS, run_tool


def children() -> list[str]:
    """State and processor time in ticks of each child of this process, as /proc has it."""
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    return [Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11] for child in own]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_busy_programs_compute_and_end_with_the_block():
    before = len(children())
    with compare_contended.busy(2):
        time.sleep(0.5)
        ticks = [int(child) for child in children()]
        assert len(ticks) == before + 2 and sum(ticks) > 10  # of 10 ms
    assert len(children()) == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_busy_programs_end_with_a_process_that_is_killed():
    code = "import compare_contended, sys, time\nwith compare_contended.busy(1) as _:\n print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=TOOLS, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(TOOLS.parent)}
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        busy = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        assert len(busy) == 1
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{busy[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{busy[0]}").exists()


def test_both_are_measured_quiet_and_beside_busy_programs(demo_gguf: Path, llama_bench: Path):
    done = run_tool("compare_contended", demo_gguf, "--llama-bench", llama_bench, "-n", 2, "--threads", 1, "--busy", 1, "--rounds", 2)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "quiet, tok/s", "1 busy programs, tok/s", "times slower"]
    assert [row[0] for row in rows[2:]] == ["ggpy", "llama.cpp"]
    assert rows[3][1:] == ["10.0 [10.0–10.0]", "10.0 [10.0–10.0]", "1.0 [1.0–1.0]"]
