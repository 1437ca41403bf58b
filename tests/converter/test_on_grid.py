"""Float weights on the grid of a block format are recognised by their values and stay on it; ordinary weights are never taken for such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter import convert
from ggpy.converter.on_grid import grid_of, recognise
from ggpy.converter.source import SourceTensor
from ggpy.errors import CheckpointError
from ggpy.gguf import open_gguf
from ggpy.runtime.encode import FLOATS, widened

from .checkpoints import CONFIG, random_weights, write_checkpoint

LEVELS = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-127, 127), "Q4_1": (0, 15), "Q5_1": (0, 31)}


def narrowed(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to a dtype, to nearest and even, as `FLOATS` has it."""
    if dtype != "BF16":
        return values.astype(FLOATS[dtype])
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def tensor_of(values: np.ndarray, dtype: str = "F32", name: str = "blk.0.ffn_up.weight") -> SourceTensor:
    return SourceTensor(name, name, values.shape, dtype, "F32", lambda: lambda start, stop: values[start:stop])


def on_grid(rng: np.random.Generator, name: str, shape: tuple[int, int], *, scales: str = "f2", outermost: bool = False) -> np.ndarray:
    """float32 values of a format's grid. scales: their dtype; outermost: whether a block's largest weight has the outermost level, as
    ggml's encoders would have it."""
    low, high = LEVELS[name]
    n_blocks = shape[0] * shape[1] // 32
    quants = np.rint(rng.standard_normal((n_blocks, 32)) * (high - low) / 8 + (high + low) / 2).clip(low + 1, high - 1)
    if name == "Q8_0" or outermost:
        quants[:, 3], quants[:, 7] = low, high
    d = (0.002 + 0.01 * rng.random((n_blocks, 1))).astype(scales).astype(np.float32)
    m = np.zeros_like(d) if low else (-0.05 * rng.random((n_blocks, 1)) - 0.02).astype(scales).astype(np.float32)
    return (d * quants.astype(np.float32) + m).reshape(shape)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LEVELS)
def test_a_grid_is_found_again(name: str, dtype: str):
    """Decoded weights round to the source's, though no block's largest has the outermost level, which is where ggml's encoders lose. Where
    weights are rounded and have offsets, a few blocks may miss one by a tie."""
    values = narrowed(on_grid(np.random.default_rng(1), name, (48, 256)), dtype)
    (tensor,) = recognise([tensor_of(values, dtype)])
    assert tensor.quantized is not None and tensor.quantized.fits[0] == name and grid_of(tensor) == name
    for format, open_rows in tensor.repacked.items():
        decoded = dequantize(open_rows()(5, 29), BLOCKS[format])
        again = (widened(narrowed(decoded, dtype)) == widened(values[5:29])).reshape(-1, 32).all(axis=1)
        assert again.all() or (name in ("Q4_1", "Q5_1") and dtype != "F32" and again.mean() > 0.97), format
    encode = BLOCKS[name].encode
    assert encode is not None
    searched = dequantize(encode(widened(values).reshape(-1, 32)).reshape(48, -1), BLOCKS[name])
    assert name == "Q8_0" or not np.array_equal(widened(narrowed(searched, dtype)), widened(values))


def test_scales_that_half_precision_rounds():
    """Four-bit groups of 128 with scales of single precision, as of other methods: quants stay, scales are rounded."""
    rng = np.random.default_rng(2)
    groups = np.rint(rng.standard_normal((96, 128)) * 2.5).clip(-7, 7) * (0.003 + rng.random((96, 1)) / 100)
    values = groups.astype(np.float32).reshape(24, 512)
    (tensor,) = recognise([tensor_of(values)])
    assert tensor.quantized and tensor.quantized.fits == ("Q4_0", "Q5_0", "Q8_0")
    decoded = dequantize(tensor.repacked["Q4_0"]()(0, 24), BLOCKS["Q4_0"])
    assert np.abs(decoded - values).max() / np.abs(values).max() < 2.0**-11 and np.abs(decoded - values).max() > 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_weights_are_left_alone(dtype: str):
    rng = np.random.default_rng(3)
    for values in (rng.standard_normal((64, 256)), rng.standard_t(3, (64, 256)) / 50, rng.random((64, 256)), np.zeros((64, 256))):
        assert grid_of(tensor_of(narrowed(values.astype(np.float32), dtype), dtype)) is None
    assert grid_of(tensor_of(np.where(rng.random((64, 256)) < 0.5, 1, -1).astype(np.float32))) is None  # two values tell nothing
    grid = on_grid(rng, "Q4_0", (64, 256))
    noise = grid + rng.uniform(-0.002, 0.002, grid.shape)
    assert grid_of(tensor_of(narrowed(noise.astype(np.float32), dtype), dtype)) is None
    assert grid_of(tensor_of(grid[:, :250])) is None and grid_of(tensor_of(grid[:0])) is None
    grid[40, 10] = np.nan
    assert recognise([tensor_of(grid[30:50])])[0].quantized is None or not np.isfinite(grid).all()


def test_most_of_a_model_must_be_on_a_grid():
    rng = np.random.default_rng(4)
    on = [tensor_of(on_grid(rng, "Q4_1", (32, 64)), name=f"blk.{i}.attn_q.weight") for i in range(4)]
    off = [tensor_of(rng.standard_normal((32, 64)).astype(np.float32), name=f"blk.{i}.attn_k.weight") for i in range(4)]
    norm = tensor_of(np.ones(64, np.float32), name="blk.0.attn_norm.weight")
    few = [norm, *on[:1], *off]
    assert recognise(few) == few
    found = recognise([norm, *on, *off[:1]])
    assert [tensor.quantized is not None for tensor in found] == [False, True, True, True, True, False]


def test_a_block_off_the_grid_that_no_sample_showed():
    """It is encoded as always, not worse, and its neighbours stay exact."""
    rng = np.random.default_rng(5)
    values = on_grid(rng, "Q4_0", (2000, 64))
    odd = rng.standard_normal(32).astype(np.float32)
    values[997, 32:] = odd
    (tensor,) = recognise([tensor_of(values)])
    assert tensor.quantized
    decoded = dequantize(tensor.repacked["Q4_0"]()(990, 1000), BLOCKS["Q4_0"])
    encode = BLOCKS["Q4_0"].encode
    assert encode is not None
    plain = dequantize(encode(odd[None]), BLOCKS["Q4_0"])[0]
    assert np.abs(decoded[7, 32:] - odd).max() <= np.abs(plain - odd).max()
    decoded[7, 32:] = odd
    assert np.array_equal(decoded, values[990:1000])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, weights = np.random.default_rng(6), random_weights(CONFIG)
    for name, values in weights.items():
        if "proj" in name:
            weights[name] = on_grid(rng, "Q4_0", values.shape)
    return write_checkpoint(tmp_path_factory.mktemp("grid") / "model", weights=weights)


@pytest.mark.parametrize("type", [None, "keep", "q4_0", "q8_0"])
def test_a_checkpoint_stays_on_its_grid(checkpoint: Path, tmp_path: Path, type: str | None):
    """Rows of q and k are permuted on the way, with their blocks."""
    report = convert(checkpoint, tmp_path / "out.gguf", type, verify="none" if type else "full")
    kept = [tensor for tensor in report.tensors if tensor.method]
    format = "Q8_0" if type == "q8_0" else "Q4_0"
    assert len(kept) == 14 and {(t.format, t.repacked, t.relative_rmse) for t in kept} == {(format, "rounded", 0.0)}
    assert f"14 tensors lie on the Q4_0 grid and stay on it (14 {format}): no loss" in str(report)
    convert(checkpoint, tmp_path / "f32.gguf", "f32", verify="none")
    with open_gguf(tmp_path / "out.gguf") as file, open_gguf(tmp_path / "f32.gguf") as base:
        for tensor in kept:
            assert np.array_equal(file.tensors[tensor.name].dequantize(), base.tensors[tensor.name].dequantize())


def test_leaving_the_grid_is_said(checkpoint: Path, tmp_path: Path):
    report = convert(checkpoint, tmp_path / "out.gguf", "q5_1", verify="none")
    assert report.warnings == (
        "quantizing again what is on the Q4_0 grid already: its own error stays in, type keep loses nothing or next to nothing",
    )
    assert all(tensor.relative_rmse for tensor in report.tensors if tensor.method)


def test_a_file_of_floats_gets_back_on_it(checkpoint: Path, tmp_path: Path):
    convert(checkpoint, tmp_path / "f32.gguf", "f32", verify="none")
    report = convert(tmp_path / "f32.gguf", tmp_path / "out.gguf", verify="none")
    assert {(t.format, t.relative_rmse) for t in report.tensors if t.method} == {("Q4_0", 0.0)}


def test_nan_where_no_sample_showed_it(tmp_path: Path):
    rng, weights = np.random.default_rng(7), random_weights(CONFIG)
    weights = {name: on_grid(rng, "Q4_0", v.shape) if v.ndim > 1 else v for name, v in weights.items()}
    weights["model.embed_tokens.weight"][263 // 2, 40] = np.nan
    folder = write_checkpoint(tmp_path / "model", weights=weights)
    with pytest.raises(CheckpointError, match=r"model.embed_tokens.weight is nan at index \[131, 40\]"):
        convert(folder, tmp_path / "out.gguf", verify="none")
    report = convert(folder, tmp_path / "out.gguf", verify="none", allow_nonfinite=True)
    assert next(t.format for t in report.tensors if t.name == "token_embd.weight") == "F32"
