"""NaN and infinity are refused with tensor and index, or kept bit by bit where the user allows them; they never vanish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter import convert
from ggpy.converter.recipes import RECIPES
from ggpy.errors import CheckpointError
from ggpy.gguf import GGUFWriter, open_gguf

from .checkpoints import CONFIG, random_weights, stored, write_checkpoint

ODD = "model.layers.1.mlp.up_proj.weight"
PLACED = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def odd_weights() -> dict[str, np.ndarray]:
    weights = random_weights(CONFIG)
    for i, value in enumerate(PLACED.values()):
        weights[ODD][90 + i, 3] = value
    weights["model.norm.weight"][5] = np.nan
    return weights


@pytest.mark.parametrize(
    ("dtype", "type", "format"),
    [("F32", "q4_k_m", "F32"), ("BF16", "q8_0", "BF16"), ("F16", "q4_0", "F32"), ("F32", "f16", "F32"), ("BF16", "f16", "BF16"),
     ("BF16", "f32", "F32"), ("F16", "f16", "F16"), ("BF16", "bf16", "BF16")],
)  # fmt: skip
def test_allowed_they_are_kept_and_said(tmp_path: Path, odd_weights: dict[str, np.ndarray], dtype: str, type: str, format: str):
    folder = write_checkpoint(tmp_path / "model", weights=odd_weights, dtype=dtype)
    report = convert(folder, tmp_path / "out.gguf", type, allow_nonfinite=True, measure_error=True)
    with open_gguf(tmp_path / "out.gguf") as file:
        tensor, other = file.tensors["blk.1.ffn_up.weight"], file.tensors["blk.0.ffn_up.weight"]
        values = tensor.dequantize()
        assert tensor.format.name == format
        assert other.format.name == (type.upper() if type in ("f32", "f16", "bf16") else {"q4_k_m": "Q5_0"}.get(type, type.upper()))
        np.testing.assert_array_equal(values[90:93, 3], list(PLACED.values()))
        expected = np.frombuffer(stored(odd_weights[ODD], dtype)[2], {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[dtype])
        expected = (expected.astype("<u4") << 16).view("<f4") if dtype == "BF16" else expected.astype("<f4")
        np.testing.assert_array_equal(values.ravel(), expected)
        assert np.isnan(file.tensors["output_norm.weight"].dequantize().ravel()[5])
    said = "\n".join(report.warnings)
    assert "tensor blk.1.ffn_up.weight is nan at index [90, 3]: kept as it is" in said
    assert "tensor output_norm.weight is nan at index [5]: kept as it is" in said
    wanted = next(t.wanted for t in report.tensors if t.name == "blk.1.ffn_up.weight")
    assert (wanted is not None) == (format != type.upper()) == ("nan at index [90, 3], which" in said)
    assert all(np.isfinite(t.relative_rmse) for t in report.tensors if t.relative_rmse is not None)


def test_strict_refuses_them_all_the_same(tmp_path: Path, odd_weights: dict[str, np.ndarray]):
    folder = write_checkpoint(tmp_path / "model", weights=odd_weights)
    with pytest.raises(CheckpointError, match=r"is nan at index \[90, 3\]"):
        convert(folder, tmp_path / "out.gguf", "q8_0", allow_nonfinite=True, strict=True)
    assert left_in(tmp_path) == ["model"]


def write_gguf(path: Path, format: str, data: np.ndarray) -> Path:
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("llama.block_count", 1)
        writer.add_tensor("blk.0.ffn_up.weight", (4, 256), BLOCKS[format])
        writer.write_tensor("blk.0.ffn_up.weight", data)
    return path


@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_floats_that_are_copied_are_looked_at(tmp_path: Path, format: str):
    values = np.ones((4, 256), np.float32)
    values[2, 7] = -np.inf
    raw = np.frombuffer(stored(values, format)[2], np.uint8)
    source = write_gguf(tmp_path / "a.gguf", format, raw)
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight is -inf at index \[2, 7\]"):
        convert(source, tmp_path / "b.gguf", format)
    assert left_in(tmp_path) == ["a.gguf"]
    report = convert(source, tmp_path / "b.gguf", format, allow_nonfinite=True)
    assert report.warnings == ("tensor blk.0.ffn_up.weight is -inf at index [2, 7]: kept as it is",)
    with open_gguf(tmp_path / "b.gguf") as file:
        assert file.tensors["blk.0.ffn_up.weight"].data.tobytes() == raw.tobytes()


TYPES = {"Q2_K": "Q2_K", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S"}  # that keep matrices of such a format, if there are any
SCALED = [
    (name, field.name)
    for name, block in BLOCKS.items()
    if block.decode and block.block_values > 1 and TYPES.get(name, name) in RECIPES
    for field in block.fields
    if field.dtype.kind == "f"
]


@pytest.mark.parametrize(("format", "field"), SCALED)
def test_scales_that_are_copied_are_looked_at(tmp_path: Path, format: str, field: str):
    """Blocks that keep their format are not decoded, but their scales are read."""
    block, at = BLOCKS[format], 0
    for part in block.fields:
        if part.name == field:
            break
        at += part.n_bytes
    data = np.zeros((4, block.row_bytes(256)), np.uint8)
    dtype = next(part.dtype for part in block.fields if part.name == field)
    data.reshape(-1, block.block_bytes)[-1, at : at + dtype.itemsize] = np.array([np.nan], dtype).view(np.uint8)
    source = write_gguf(tmp_path / "a.gguf", format, data)
    type = TYPES.get(format, format)
    where = rf"blk\.0\.ffn_up\.weight has {field} = nan in row 3, block {256 // block.block_values - 1}"
    with pytest.raises(CheckpointError, match=where):
        convert(source, tmp_path / "b.gguf", type)
    convert(source, tmp_path / "b.gguf", type, allow_nonfinite=True)
    with open_gguf(tmp_path / "b.gguf") as file:
        assert file.tensors["blk.0.ffn_up.weight"].data.tobytes() == data.tobytes()


def test_blocks_that_decode_to_nan_are_refused_when_they_change_format(tmp_path: Path):
    data = np.zeros((4, BLOCKS["Q8_0"].row_bytes(256)), np.uint8)
    data[1, 34:36] = np.array([np.inf], np.float16).view(np.uint8)
    data[1, 36:68] = 1
    source = write_gguf(tmp_path / "a.gguf", "Q8_0", data)
    with pytest.raises(CheckpointError, match=r"is inf at index \[1, 32\]"):
        convert(source, tmp_path / "b.gguf", "q4_0")
    report = convert(source, tmp_path / "b.gguf", "q4_0", allow_nonfinite=True)
    assert report.tensors[0].format == "F32" and report.tensors[0].wanted == "Q4_0"


@pytest.mark.parametrize("index", [(0, 0), (95, 63), (40, 31), (40, 32)])
@pytest.mark.parametrize("type", ["q8_0", "q4_0", "f16"])
def test_one_value_is_found_at_the_ends_of_rows_and_blocks(tmp_path: Path, index: tuple[int, int], type: str):
    weights = random_weights(CONFIG)
    weights[ODD][index] = np.nan
    folder = write_checkpoint(tmp_path / "model", weights=weights)
    with pytest.raises(CheckpointError, match=rf"at index \[{index[0]}, {index[1]}\]"):
        convert(folder, tmp_path / "out.gguf", type)
