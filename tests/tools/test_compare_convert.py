"""`tools/compare_convert.py` times what it says, on both ways, and compares what they wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import compare_convert
import make_checkpoint
import make_synthetic
import pytest
from compare_convert import Cost

from .run_tool import run_tool

SHAPE = make_synthetic.Shape(1, 256, 512, 4, 2, 320, 10000.0, 128, tied=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    make_checkpoint.write(SHAPE, tmp_path / "Made")
    return tmp_path / "Made"


def stand_in(path: Path, lines: str) -> Path:
    """A program that converts with ggpy as llama.cpp's would."""
    path.write_text(f"#!{sys.executable}\nimport sys, ggpy\n{lines}", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are scripts with a #! line")
@pytest.mark.parametrize(("type", "verdict"), [("type", "are the same"), ("'q4_0'", "**differ**")])
def test_both_ways_are_timed_and_their_files_compared(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: str, verdict: str
):
    monkeypatch.setenv("PYTHONPATH", str(Path(compare_convert.__file__).parents[1]))
    converter = stand_in(
        tmp_path / "convert.py", "_, source, a, outtype, b, out = sys.argv\nassert (a, b) == ('--outtype', '--outfile')\n"
        "ggpy.convert(source, out, outtype)\n"
    )  # fmt: skip
    quantize = stand_in(tmp_path / "quantize", f"_, source, out, type, threads = sys.argv\nggpy.convert(source, out, {type}, force=True)\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    options = ["--llama-quantize", quantize, "--converter", converter, "--type", "q8_0", "--threads", 1, "--rounds", 1]
    done = run_tool("compare_convert", checkpoint, *options)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows] == ["program", "---", "ggpy-convert", "convert_hf_to_gguf", "llama-quantize", "llama.cpp, both"]
    walls = {row[0]: float(row[1]) for row in rows[2:]}
    assert walls["llama.cpp, both"] == pytest.approx(walls["convert_hf_to_gguf"] + walls["llama-quantize"], abs=0.11)
    assert done.stdout.rstrip().endswith(f"times as long; tensors {verdict}")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_cost_of_a_process_is_its_own():
    """Measured from a small process, as the tool is one: what a process starts begins with its peak of memory."""
    busy = "x = bytearray(200_000_000)\nwhile __import__('time').process_time() < 0.3: pass"
    script = f"import sys, compare_convert; print(*vars(compare_convert.measured([sys.executable, '-c', {busy!r}])).values())"
    tools = Path(compare_convert.__file__).parent
    done = subprocess.run([sys.executable, "-c", script], cwd=tools, check=True, capture_output=True, text=True, encoding="utf-8")
    wall, cpu, memory = map(float, done.stdout.split())
    cost = Cost(wall, cpu, int(memory))
    assert 0.25 < cost.cpu <= cost.wall + 0.1 and 200_000_000 < cost.memory < 400_000_000
    assert Cost(1.0, 2.0, 3).then(Cost(0.5, 0.5, 1)) == Cost(1.5, 2.5, 3)
    assert compare_convert.row("x", [Cost(2.0, 3.0, 10**6)], 2) == ["x", "2.0", "3.0", "75%", "1"]


def test_a_program_that_fails_is_named_with_what_it_said():
    with pytest.raises(SystemExit, match=r"failed \(3\): no torch"):
        compare_convert.measured([sys.executable, "-c", "import sys; print('no torch'); sys.exit(3)"])
    with pytest.raises(SystemExit, match="nothing-here: No such file"):
        compare_convert.measured(["nothing-here"])
