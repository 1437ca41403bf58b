"""`tools/compare_architectures.py` runs an architecture's file and a Llama's in turns."""

from __future__ import annotations

import math
from pathlib import Path

import make_synthetic
import pytest

from .run_tool import run_tool

TINY = make_synthetic.Shape(1, 256, 512, 4, 2, 320, 10000.0, 128, tied=True)


def test_a_table_of_ratios(tmp_path: Path):
    for name in ("llama", "mixtral"):
        shape = make_synthetic.of_architecture(TINY, name)
        make_synthetic.write(shape, make_synthetic.find_recipe("q8_0"), tmp_path / f"300m-q8_0-{name}.gguf")
    options = ["--type", "q8_0", "--architectures", "mixtral", "--threads", 1, "-p", 4, "-n", 2, "--rounds", 1, "--folder", tmp_path]
    done = run_tool("compare_architectures", *options)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "test", "tok/s", "of llama's speed"]
    assert [row[:2] for row in rows[2:]] == [["mixtral", "pp4"], ["mixtral", "tg2"]]
    assert all(float(row[3]) >= 0 for row in rows[2:])  # nothing more can be said of so few tokens


def test_an_unknown_architecture_is_one_line(tmp_path: Path):
    done = run_tool("compare_architectures", "--architectures", "mamba", "--folder", tmp_path)
    assert done.returncode == 2 and "no architecture mamba; there are llama, qwen2" in done.stderr


@pytest.mark.parametrize("name", make_synthetic.ARCHITECTURES)
def test_a_token_reads_as_much_in_every_architecture(name: str):
    shape = make_synthetic.of_architecture(make_synthetic.SHAPES["300m"], name)
    chosen = shape.n_experts_used / max(1, shape.n_experts)
    sizes = [size for size in make_synthetic.tensors(shape).values() if len(size) > 1]
    n_values = sum(math.prod(size) * (chosen if len(size) == 3 else 1) for size in sizes)
    assert n_values == pytest.approx(284_164_096, rel=0.005)  # a router is the rest
