"""Whole checkpoints of quantized weights, converted: what is kept, what is lost, what is said, and that they tell the same story."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggpy
from ggpy.arch.llama import interleave_rotary_pairs
from ggpy.converter import Report, convert, stream
from ggpy.errors import CheckpointError, GGPyError
from ggpy.gguf import open_gguf

from ..checkpoints import CONFIG, random_weights, safetensors_bytes, stored, write_checkpoint
from . import layouts
from .layouts import Layer

MODULES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
N_QUANTIZED = 2 * len(MODULES)


def write_quantized(folder: Path, make: Callable[..., Layer], **arguments: Any) -> dict[str, np.ndarray]:
    """A checkpoint whose projections were quantized; the rows they stand for, under their GGUF names and in GGUF's order."""
    rng, weights = np.random.default_rng(0), random_weights(CONFIG)
    write_checkpoint(folder, weights=weights)
    entries, rows, settings = {}, {}, {}
    for name, values in weights.items():
        module = name.removesuffix(".weight")
        kind = MODULES.get(module.partition(".layers.")[2].partition(".")[2])
        if kind is None:
            entries[name] = stored(values, "F16")
            continue
        layer = make(rng, *values.shape, **arguments)
        settings = layer.settings
        entries |= {module + suffix: entry for suffix, entry in layer.entries.items()}
        n_heads = {"attn_q": 4, "attn_k": 2}.get(kind)
        ordered = interleave_rotary_pairs(layer.rows, n_heads) if n_heads else layer.rows
        rows[f"blk.{module.partition('.layers.')[2].partition('.')[0]}.{kind}.weight"] = ordered
    (folder / "model.safetensors").write_bytes(safetensors_bytes(entries))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": settings}), encoding="utf-8")
    return rows


def converted(tmp_path: Path, type: str | None, **more: Any) -> tuple[Report, dict[str, np.ndarray]]:
    report = convert(tmp_path / "model", tmp_path / "out.gguf", type, force=True, **more)
    with open_gguf(tmp_path / "out.gguf") as file:
        return report, {name: tensor.dequantize() for name, tensor in file.tensors.items()}


def formats(report: Report) -> set[tuple[str, str | None]]:
    """Of the quantized weights: format and how they were repacked."""
    return {(tensor.format, tensor.repacked) for tensor in report.tensors if tensor.method}


EXACT = [
    ("keep", layouts.gptq, {"order": "trivial"}, "Q4_0"),
    ("exact", layouts.gptq, {"order": "trivial"}, "Q4_0"),
    ("keep", layouts.gptq, {"bits": 2}, "Q4_0"),
    ("keep", layouts.gptq, {"bits": 3}, "Q4_0"),
    ("keep", layouts.gptq, {"bits": 8}, "Q8_0"),
    ("exact", layouts.gptq, {"symmetric": False}, "Q5_0"),
    ("exact", layouts.awq, {}, "Q5_0"),
    ("keep", layouts.packed, {}, "Q4_0"),
    ("keep", layouts.packed, {"bits": 8}, "Q8_0"),
    ("q8_0", layouts.packed, {}, "Q8_0"),
]


@pytest.mark.parametrize(("type", "make", "arguments", "format"), EXACT)
def test_what_fits_is_repacked_bit_for_bit(
    tmp_path: Path, type: str, make: Callable[..., Layer], arguments: dict[str, Any], format: str, monkeypatch: pytest.MonkeyPatch
):
    """In pieces that cut heads, too."""
    monkeypatch.setattr(stream, "CHUNK_VALUES", 64 * 11)
    rows = write_quantized(tmp_path / "model", make, **arguments)
    report, found = converted(tmp_path, type, measure_error=True)
    assert formats(report) == {(format, "exact")} and report.warnings == ()
    for name, expected in rows.items():
        np.testing.assert_array_equal(found[name], expected)
    assert all((t.relative_rmse, t.worst_error) == (0, 0) for t in report.tensors if t.method)
    assert f"{N_QUANTIZED} tensors repacked bit for bit ({N_QUANTIZED} {format})" in str(report)


@pytest.mark.parametrize(
    ("make", "arguments", "format"),
    [
        (layouts.gptq, {"symmetric": False}, "Q4_1"),
        (layouts.awq, {}, "Q4_1"),
        (layouts.awq, {"dtype": "BF16"}, "Q4_1"),
        (layouts.packed, {"symmetric": False}, "Q4_1"),
        (layouts.gptq, {"dtype": "F32"}, "Q4_0"),
        (layouts.bnb_int8, {}, "Q8_0"),
        (layouts.int8, {"group": 32}, "Q8_0"),
    ],
)
def test_what_fits_but_for_a_rounding_says_by_how_much(tmp_path: Path, make: Callable[..., Layer], arguments: dict[str, Any], format: str):
    rows = write_quantized(tmp_path / "model", make, **arguments)
    report, found = converted(tmp_path, "keep")
    assert formats(report) == {(format, "rounded")} and report.warnings == ()
    for tensor in report.tensors:
        if tensor.method:
            expected, got = rows[tensor.name].reshape(-1, 32), found[tensor.name].reshape(-1, 32)
            peaks, errors = np.abs(expected).max(axis=1), np.abs(got - expected)
            assert tensor.worst_error == pytest.approx((errors.max(axis=1)[peaks > 0] / peaks[peaks > 0]).max())
            assert tensor.relative_rmse == pytest.approx(np.linalg.norm(errors) / np.linalg.norm(expected), rel=1e-4)
            assert 0 < tensor.relative_rmse < 2.0**-11
    assert f"repacked ({N_QUANTIZED} {format}), quants as they are" in str(report) and "of its block's largest" in str(report)


@pytest.mark.parametrize(
    ("make", "arguments", "format", "most"),
    [
        (layouts.gptq, {"order": "scattered"}, "Q8_0", 0.01),
        (layouts.gptq, {"bits": 8, "symmetric": False}, "F16", 2.0**-11),
        (layouts.bnb_4bit, {}, "Q8_0", 0.01),
        (layouts.bnb_4bit, {"double": True}, "Q8_0", 0.01),
        (layouts.fp8, {"scaled": "block"}, "Q8_0", 0.01),
    ],
)
def test_what_fits_no_block_says_what_it_loses(
    tmp_path: Path, make: Callable[..., Layer], arguments: dict[str, Any], format: str, most: float
):
    rows = write_quantized(tmp_path / "model", make, **arguments)
    report, found = converted(tmp_path, None)
    assert formats(report) == {(format, None)} and report.warnings == ()
    assert all(t.relative_rmse is not None and 0 < t.relative_rmse < most for t in report.tensors if t.method)
    assert "on top of the method's own" in str(report)
    exact, found = converted(tmp_path, "exact")
    assert formats(exact) == {("F32", None)}
    for name, expected in rows.items():
        np.testing.assert_array_equal(found[name], expected)


def test_floats_stay_what_they_are(tmp_path: Path):
    write_quantized(tmp_path / "model", layouts.gptq)
    report, found = converted(tmp_path, None)
    kept = {t.name: t.format for t in report.tensors if not t.method}
    assert kept["token_embd.weight"] == kept["output.weight"] == "F16" and kept["output_norm.weight"] == "F32"
    with open_gguf(tmp_path / "out.gguf") as file:
        assert file.metadata["general.file_type"] == 2 and report.recipe == "Q4_0"
    weights = random_weights(CONFIG)["model.embed_tokens.weight"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found["token_embd.weight"], weights)


def test_a_float_checkpoint_keeps_its_type(tmp_path: Path):
    write_checkpoint(tmp_path / "model", dtype="BF16")
    report, _ = converted(tmp_path, "keep")
    assert {t.format for t in report.tensors if len(t.shape) == 2} == {"BF16"} and report.recipe == "BF16"
    default = convert(tmp_path / "model", tmp_path / "b.gguf")
    assert default.recipe == "Q4_K_M"
    again = convert(default.path, tmp_path / "c.gguf", "keep")
    assert [t.format for t in again.tensors] == [t.format for t in default.tensors]


def test_quantizing_twice_is_said_and_measured(tmp_path: Path):
    rows = write_quantized(tmp_path / "model", layouts.gptq, bits=8)
    report, found = converted(tmp_path, "q4_k_m")
    assert "quantizing again what is GPTQ 8-bit already" in report.warnings[0] and "type keep" in report.warnings[0]
    assert report.requantized == ("GPTQ 8-bit",) and "quantized a second time" in str(report)
    name = "blk.0.attn_q.weight"
    error = np.linalg.norm(found[name] - rows[name]) / np.linalg.norm(rows[name])
    assert next(t for t in report.tensors if t.name == name).relative_rmse == pytest.approx(error, rel=1e-4)
    assert report.to_json()["requantized"] == ["GPTQ 8-bit"]
    with pytest.raises(CheckpointError, match="strict"):
        convert(tmp_path / "model", tmp_path / "strict.gguf", "q4_k_m", strict=True)
    convert(tmp_path / "model", tmp_path / "strict.gguf", strict=True)


def test_threads_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "CHUNK_VALUES", 500)
    write_quantized(tmp_path / "model", layouts.gptq, symmetric=False, order="blocks")
    one, four = (convert(tmp_path / "model", tmp_path / f"{n}.gguf", threads=n).path.read_bytes() for n in (1, 4))
    assert one == four


def test_scales_that_are_no_numbers_are_refused(tmp_path: Path):
    write_quantized(tmp_path / "model", layouts.bnb_int8)
    path = tmp_path / "model" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    at = 8 + int.from_bytes(raw[:8], "little") + header["model.layers.1.mlp.up_proj.SCB"]["data_offsets"][0]
    raw[at + 4 * 5 : at + 4 * 6] = np.float32(np.nan).tobytes()
    path.write_bytes(raw)
    for type in (None, "q8_0", "exact"):
        with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight is nan at index \[5, 0\]"):
            convert(tmp_path / "model", tmp_path / "out.gguf", type)


def test_shapes_must_be_the_configs(tmp_path: Path):
    write_quantized(tmp_path / "model", layouts.gptq)
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"gate_proj\.weight has shape \[96, 64\], expected \[128, 64\]"):
        convert(tmp_path / "model", tmp_path / "out.gguf")


def test_bad_types_name_keep_and_exact(tmp_path: Path):
    with pytest.raises(GGPyError, match=r"'kept' is not one ggpy writes"):
        convert(write_checkpoint(tmp_path / "model"), tmp_path / "out.gguf", "kept")


# --- checkpoints that others wrote ------------------------------------------------------------------------------------

STORIES = {
    "bnb-int8": ({("Q8_0", "rounded"), ("F16", None)}, 0.0005),
    "bnb-nf4": ({("Q8_0", None), ("F16", None)}, 0.01),
    "bnb-nf4dq": ({("Q8_0", None), ("F16", None)}, 0.01),
    "ct-w4ch": ({("Q4_0", "exact"), ("F16", None)}, 0.0005),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories_are_told_as_their_own_weights_tell_them(shared: Path, tmp_path: Path, name: str):
    """Rows of 172 fit no block and become F16; the rest is kept. Logits are those of the same weights in float32."""
    folder = shared / "models" / "quantized" / f"stories260K-{name}"
    expected, most = STORIES[name]
    report = convert(folder, tmp_path / "keep.gguf")
    assert formats(report) == expected and report.warnings == ()
    assert all(t.relative_rmse <= most for t in report.tensors if t.relative_rmse is not None)
    convert(folder, tmp_path / "exact.gguf", "exact")
    kept, exact = ggpy.load(tmp_path / "keep.gguf", context=128), ggpy.load(tmp_path / "exact.gguf", context=128)
    with open_gguf(tmp_path / "exact.gguf") as file:
        assert {t.format.name for t in file.tensors.values()} <= {"F32", "BF16", "Q4_0"}
    tokens = [1, 403, 407, 261, 378, 285, 278, 265]  # "Once upon a time"
    difference = np.abs(kept.logits(tokens) - exact.logits(tokens)).max()
    assert difference < 0.05 * np.ptp(exact.logits(tokens))
