"""Figures are what their definitions say, whatever the pieces and threads; what is damaged is named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS
from ggpy.converter.imatrix import Collected, ImportanceMatrix, write_imatrix
from ggpy.errors import GGPyError
from ggpy.gguf import open_gguf
from ggpy.xray import examine, xray
from ggpy.xray.bins import ERRORS
from ggpy.xray.words import sentences

from .conftest import DEMO, Make

RNG = np.random.default_rng(20)


def tensor_of(found: object, name: str):
    return next(tensor for tensor in found.tensors if tensor.name == name)  # type: ignore[attr-defined]


def test_figures_are_their_definitions(make: Make, monkeypatch: pytest.MonkeyPatch):
    weights = RNG.standard_normal((37, 512)).astype(np.float32)
    weights[5] *= 20
    weights[:, 100] *= 30
    file, base = make("q.gguf", {"a": ("Q4_K", weights)}), make("b.gguf", {"a": ("F32", weights)})
    importance = RNG.random(512).astype(np.float32)
    write_imatrix(ImportanceMatrix({"a": Collected(importance[None] * 7, np.array([7]))}), base.with_name("i.gguf"))
    monkeypatch.setattr(examine, "_PIECE_VALUES", 3 * 512)
    found = xray(file, base, base.with_name("i.gguf"), threads=2)
    with open_gguf(file) as opened:
        decoded = opened.tensors["a"].dequantize().astype(np.float64)
    x = weights.astype(np.float64)
    e, (tensor,) = decoded - x, found.tensors
    error = tensor.error
    assert error and tensor.columns and tensor.rows and tensor.quants
    assert error.relative_rmse == pytest.approx(np.linalg.norm(e) / np.linalg.norm(x), rel=1e-5)
    assert error.output_error == pytest.approx(math.sqrt((e**2 @ importance).sum() / (x**2 @ importance).sum()), rel=1e-5)
    assert error.loss == pytest.approx((e**2 @ importance).sum(), rel=1e-5) and error.share == 1
    assert error.cosine == pytest.approx((x * decoded).sum() / np.linalg.norm(x) / np.linalg.norm(decoded), rel=1e-5)
    assert error.max_at == np.unravel_index(np.abs(e).argmax(), e.shape) and error.max_error == pytest.approx(np.abs(e).max())
    blocks = np.sqrt((e.reshape(-1, 256) ** 2).sum(1) / (x.reshape(-1, 256) ** 2).sum(1))
    assert error.p50 == pytest.approx(np.median(blocks), rel=0.05) and sum(error.blocks) == 74
    losses = ((e**2) * importance).reshape(37, 2, 256).sum(2)
    assert (error.worst[0].row, error.worst[0].block) == np.unravel_index(losses.argmax(), losses.shape)
    assert [o.index for o in tensor.rows.named("magnitude")] == [5] and [o.index for o in tensor.columns.named("magnitude")] == [100]
    assert tensor.columns.largest == pytest.approx(np.sqrt((x**2).mean(0)).max() / np.median(np.sqrt((x**2).mean(0))), rel=1e-4)
    assert sum(tensor.quants.counts) == x.size and tensor.bits_per_weight == 4.5
    assert found.to_json() | {"seconds": 0} == xray(file, base, base.with_name("i.gguf"), threads=1).to_json() | {"seconds": 0}


@pytest.mark.parametrize("name", sorted(n for n, f in BLOCKS.items() if f.grid))
def test_what_is_taken_apart_is_what_is_decoded(name: str, make: Make):
    """Without an error against itself, and with every quant counted."""
    weights = RNG.standard_normal((4, 512)).astype(np.float32)
    path = make("q.gguf", {"a": (name, weights)})
    (tensor,) = xray(path, path).tensors
    assert tensor.error and tensor.error.equal and tensor.quants and sum(tensor.quants.counts) == weights.size
    assert tensor.quants.entropy and tensor.quants.level_bits and 0.5 < tensor.quants.entropy <= tensor.quants.level_bits
    assert sum(tensor.quants.scales) + tensor.quants.zero_scales in (weights.size // n for n in (16, 32))


def test_clipped_values_and_lost_blocks(make: Make):
    """Q8_0 blocks with known quants: what lies half a step beyond the last level is clipped, on both sides."""
    blocks = np.zeros((1, 4 * 34), np.uint8)
    step = np.float16(0.5)
    for i in range(3):
        blocks[0, 34 * i : 34 * i + 2] = np.frombuffer(step.tobytes(), np.uint8)
    quants = blocks.reshape(4, 34)[:, 2:].view(np.int8)
    quants[0, :4] = 127, 127, -128, -128
    base = np.zeros((1, 128), np.float32)
    base[0, :4] = 127.6 * 0.5, 127.4 * 0.5, -128.6 * 0.5, -120 * 0.5
    base[0, 64:96] = 0.001
    file, other = make("q.gguf", {"a": ("Q8_0", base)}, a=blocks), make("b.gguf", {"a": ("F32", base)})
    found = xray(file, other)
    (tensor,) = found.tensors
    assert tensor.quants and tensor.error and tensor.quants.clipped == 2
    assert tensor.error.lost == 1 and tensor.zero_blocks == 3 and tensor.quants.zero_scales == 1
    assert "1 block of nothing but zeros, which the base has not: in a." in sentences(found)


def test_nan_is_named_and_the_rest_still_counts(make: Make):
    weights = RNG.standard_normal((4, 64)).astype(np.float32)
    broken = weights.copy()
    broken[2, 7] = np.nan
    file = make("q.gguf", {"a": ("F32", broken), "b": ("Q4_0", weights)})
    base = make("b.gguf", {"a": ("F32", weights), "b": ("F32", weights)})
    found = xray(file, base)
    a, b = found.tensors
    assert a.nonfinite == 1 and a.bad == (2, 7) and a.error and math.isnan(a.error.relative_rmse) and not a.error.equal
    assert b.error and b.error.share == 1 and found.relative_rmse == pytest.approx(b.error.relative_rmse)
    assert sentences(found)[0] == "1 tensor with NaN or infinity: a has 1 such weights, first in row 2, column 7."
    json.dumps(found.to_json(), allow_nan=False)


def test_against_a_checkpoint(converted: Path):
    """Rows are permuted as the conversion permutes them: errors are those of the format, not of other rows."""
    found = xray(converted, DEMO, threads=2)
    assert len(found.compared) == len(found.tensors) and not found.missing
    for tensor in found.compared:
        assert tensor.error and tensor.error.relative_rmse < 0.12, tensor.name
    assert sum(tensor.error.share or 0 for tensor in found.compared if tensor.error) == pytest.approx(1)
    assert found.by_loss[0].error and found.by_loss[0].error.share == max(t.error.share or 0 for t in found.compared if t.error)
    assert any("tensors carry" in line for line in sentences(found))


def test_alone(converted: Path):
    found = xray(converted)
    assert not found.compared and found.relative_rmse is None and found.bits_per_weight < 6
    assert any("bits and carries" in line for line in sentences(found))


def test_what_cannot_be_compared_is_said(make: Make):
    weights = RNG.standard_normal((4, 64)).astype(np.float32)
    file = make("q.gguf", {"a": ("Q4_0", weights), "b": ("Q4_0", weights), "c": ("Q4_0", weights)})
    base = make("b.gguf", {"a": ("F32", weights), "b": ("F32", weights[:2]), "d": ("F32", weights)})
    said = sentences(xray(file, base))
    assert "Not compared, 2 × 64 in the base: b." in said and "Not compared, not in the base: c." in said and "Only in the base: d." in said
    with pytest.raises(GGPyError, match="another model"):
        xray(file, make("o.gguf", {"z": ("F32", weights)}))


def test_stacked_matrices_have_an_importance_each(make: Make):
    weights = RNG.standard_normal((3, 4, 64)).astype(np.float32)
    importance = RNG.random((3, 64)).astype(np.float32)
    file, base = make("q.gguf", {"a": ("Q4_0", weights)}), make("b.gguf", {"a": ("F32", weights)})
    write_imatrix(ImportanceMatrix({"a": Collected(importance, np.ones(3, np.int64))}), base.with_name("i.gguf"))
    (tensor,) = xray(file, base, base.with_name("i.gguf")).tensors
    with open_gguf(file) as opened:
        e = opened.tensors["a"].dequantize() - weights
    assert tensor.error and tensor.error.loss == pytest.approx(float((e**2 * importance[:, None]).sum()), rel=1e-5)


def test_quantiles_of_bins():
    values = np.exp(RNG.standard_normal(4000)).astype(np.float32) / 50
    counts = ERRORS.counted(np.concatenate([values, [0, np.nan, np.inf]]).astype(np.float32))
    assert counts.sum() == 4000
    for share in (0.1, 0.5, 0.99):
        assert ERRORS.quantile(counts, share) == pytest.approx(np.quantile(values, share), rel=0.03)
    assert ERRORS.quantile(counts, 0.3, zeros=4000) == 0 and math.isnan(ERRORS.quantile(counts * 0, 0.5))
