"""Synthetic files have the sizes and formats of the model they stand for, and run."""

from __future__ import annotations

from pathlib import Path

import make_synthetic
import numpy as np
import pytest
from random_blocks import DEVIATION, SLAB_VALUES, random_blocks

import ggpy
from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.recipes import RECIPES, find_recipe
from ggpy.runtime.compiled import has_kernel

from .run_tool import run_tool

TINY = make_synthetic.Shape(2, 256, 512, 4, 2, 320, 10000.0, 128, tied=True)
PARAMETERS = {"135m": 134_515_008, "1b": 1_235_814_400, "3b": 3_212_749_824, "7b": 6_738_415_616}  # as their publishers count them


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_tiny_file_of_each_recipe_gives_finite_logits(tmp_path: Path, recipe: str):
    path = tmp_path / "tiny.gguf"
    make_synthetic.write(TINY, RECIPES[recipe], path)
    with ggpy.load(path, threads=1) as model:
        logits = model.logits([1, 5, 300])
        assert logits.shape == (3, 320) and np.isfinite(logits).all() and logits.std() > 0
        assert "output.weight" not in model.file.tensors


@pytest.mark.parametrize("architecture", make_synthetic.ARCHITECTURES)
def test_a_tiny_file_of_each_architecture_gives_finite_logits(tmp_path: Path, architecture: str):
    path = tmp_path / "tiny.gguf"
    make_synthetic.write(make_synthetic.of_architecture(TINY, architecture), RECIPES["Q8_0"], path)
    with ggpy.load(path, threads=1) as model:
        logits = model.logits([1, 5, 300])
        assert logits.shape == (3, 320) and np.isfinite(logits).all() and logits.std() > 0


def test_formats_are_those_that_conversion_gives(tmp_path: Path):
    path, converted = tmp_path / "made.gguf", tmp_path / "converted.gguf"
    shape = make_synthetic.Shape(8, 256, 512, 4, 2, 320, 10000.0, 128, tied=False)
    make_synthetic.write(shape, find_recipe("f32"), tmp_path / "float.gguf")
    make_synthetic.write(shape, find_recipe("q4_k_m"), path)
    ggpy.convert(tmp_path / "float.gguf", converted, "q4_k_m")
    with ggpy.open_gguf(path) as made, ggpy.open_gguf(converted) as expected:
        assert {name: (t.shape, t.format.name) for name, t in made.tensors.items()} == {
            name: (t.shape, t.format.name) for name, t in expected.tensors.items()
        }
        assert made.metadata["general.file_type"] == expected.metadata["general.file_type"]
        gate, up = (made.tensors[f"blk.0.ffn_{name}.weight"].dequantize() for name in ("gate", "up"))
        assert not np.array_equal(gate, up) and gate.std() == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_as_many_parameters_as_the_models_they_stand_for(name: str):
    assert sum(int(np.prod(size)) for size in make_synthetic.tensors(make_synthetic.SHAPES[name]).values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in BLOCKS if has_kernel(name.lower())])
def test_random_blocks_hold_ordinary_values(name: str):
    values = dequantize(random_blocks(BLOCKS[name], 16, 512, np.random.default_rng(0)), BLOCKS[name])
    assert np.isfinite(values).all() and DEVIATION / 4 < values.std() < 4 * DEVIATION


def test_rows_repeat_past_a_slab():
    rows = SLAB_VALUES // 256
    blocks = random_blocks(BLOCKS["Q8_0"], rows + 3, 256, np.random.default_rng(0))
    assert blocks.shape == (rows + 3, 272) and np.array_equal(blocks[rows:], blocks[:3])


def test_an_unknown_type_is_one_line(tmp_path: Path):
    done = run_tool("make_synthetic", "1b", "q9_z", tmp_path / "x.gguf")
    assert done.returncode == 1 and done.stdout == "" and list(tmp_path.iterdir()) == []
    assert done.stderr.startswith("make_synthetic: error: type 'q9_z' is not one ggpy writes") and done.stderr.count("\n") == 1
