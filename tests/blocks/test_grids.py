"""The grid under a block: its parts give the decoded values, and go back into the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat
from ggpy.blocks.affine_grid import sub_scales

from .pages import same_bits

ON_A_GRID = [f for f in BLOCKS.values() if f.grid is not None]
EXPECTED = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"}
each_format = pytest.mark.parametrize("block_format", ON_A_GRID, ids=lambda f: f.name)


def test_the_formats_on_a_grid():
    assert {f.name for f in ON_A_GRID} == EXPECTED


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    """Blocks of each format: of random bytes, and as ggml encodes weights."""
    with np.load(shared / "golden" / "decode.npz") as decode, np.load(shared / "golden" / "encode.npz") as encode:
        return {
            f.name: np.concatenate([decode[f"{f.name}.blocks"], encode[f"{f.name}.blocks"].reshape(-1, f.block_bytes)]) for f in ON_A_GRID
        }


@each_format
@np.errstate(all="ignore")
def test_the_grid_gives_what_decode_gives(golden: dict[str, np.ndarray], block_format: BlockFormat):
    assert block_format.grid is not None and block_format.decode is not None
    scale, offset, quants = block_format.grid.unpack(golden[block_format.name])
    assert scale.dtype == offset.dtype == block_format.grid.levels.dtype == np.float32
    assert same_bits(scale * block_format.grid.levels[quants] + offset, block_format.decode(golden[block_format.name]))


@each_format
def test_parts_go_back_into_the_same_bytes(golden: dict[str, np.ndarray], block_format: BlockFormat):
    grid, blocks = block_format.grid, golden[block_format.name]
    assert grid is not None
    parts = grid.split(blocks)
    assert np.array_equal(grid.join(parts), blocks)
    assert parts.scales.min() >= grid.scales[0] and parts.scales.max() <= grid.scales[-1]
    assert parts.mins.min() >= grid.mins[0] and parts.mins.max() <= grid.mins[-1]
    assert parts.quants.max() < len(grid.levels) and (np.diff(grid.levels) > 0).all()
    assert parts.scales.shape == (len(blocks), block_format.block_values // grid.sub_values)


@each_format
@np.errstate(all="ignore")
def test_other_parts_are_kept_in_full(golden: dict[str, np.ndarray], block_format: BlockFormat):
    grid, blocks = block_format.grid, golden[block_format.name]
    assert grid is not None
    random = np.random.default_rng(5)
    before = grid.split(blocks)
    after = before._replace(
        scales=random.integers(grid.scales[0], grid.scales[-1] + 1, before.scales.shape, np.int32),
        mins=random.integers(grid.mins[0], grid.mins[-1] + 1, before.mins.shape, np.int32),
        quants=random.integers(0, len(grid.levels), before.quants.shape, np.uint8),
    )
    kept = grid.split(grid.join(after))
    assert all(np.array_equal(a, b) for a, b in zip(after[2:], kept[2:], strict=True))
    with_quants = grid.with_quants(blocks, after.quants)
    assert np.array_equal(grid.split(with_quants).quants, after.quants)
    assert all(same_bits(a, b) for a, b in zip(sub_scales(grid.split(with_quants)), sub_scales(before), strict=True))
