"""The methods beside the tools people use for them: bitsandbytes and llm-compressor where they are installed, and layers they wrote."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ggpy.arch.hf_config import HFConfig
from ggpy.converter.prequantized import QuantizedMatrix, dequantized
from ggpy.converter.safetensors import SafetensorsFile
from ggpy.methods import gptq, grouped_absmax, llm_int8, nf4
from ggpy.methods.activations import Model
from ggpy.methods.grids import Grid, affine_grid, half

from .layers import layer, output_error

HF_NAMES = {"blk.0.attn_q.weight": "self_attn.q_proj", "blk.0.attn_k.weight": "self_attn.k_proj", "blk.0.ffn_down.weight": "mlp.down_proj"}
TOKENS = 8192


@contextlib.contextmanager
def torch_and(name: str) -> Iterator[tuple]:
    """torch and a library that is built on it, whose own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="torch is not installed")
        yield torch, pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def first_layer(shared: Path, smollm2_checkpoint: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """q, k and down of SmolLM2's first layer: weights as the tools were given them, activations over one text, and over another.

    Rows of q and k are in GGUF's order, in which heads keep rotary pairs side by side.
    """
    texts = [(shared / "texts" / name).read_text(encoding="utf-8") for name in ("wikitext2-raw-test.txt", "us-inaugural-addresses.txt")]
    found = {}
    with Model(smollm2_checkpoint) as model:
        chunks = [model.chunks(text, tokens, "the text") for text, tokens in zip(texts, (TOKENS, TOKENS // 4), strict=True)]

        def visit(name: str, weights: np.ndarray, x: np.ndarray) -> None:
            if name in HF_NAMES:
                found[name] = weights, x[:TOKENS], x[TOKENS:]

        model.read(np.concatenate(chunks), [0], visit)
    return found


def in_gguf_order(name: str, rows: np.ndarray) -> np.ndarray:
    """Rows of a checkpoint's q or k, heads of 64, as GGUF has them."""
    if "ffn" in name:
        return rows
    return rows.reshape(-1, 2, 32, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def symmetric_grid(groups: np.ndarray, bits: int) -> Grid:
    """That of GPTQModel with sym: as many levels below as above, and one more below."""
    highest = 2**bits - 1
    scale = half(2 * np.abs(groups).max(axis=-1, keepdims=True) / highest)
    return Grid(scale, np.full_like(scale, (highest + 1) / 2), highest)


@pytest.mark.real_model
def test_gptq_is_as_good_as_what_gptqmodel_wrote(shared: Path, first_layer: dict):
    """GPTQModel's own symmetric 4-bit file with groups of 64. It was calibrated on another text than ours, so errors are to be alike only.

    As there, damping is 0.05, and groups and the columns within them are taken in the order of their activations.
    """
    path = shared / "models" / "quantized" / "SmolLM2-135M-gptq-4bit-g64.layer0.safetensors"
    raw = path.read_bytes()
    settings = json.loads(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["quantization_config"])
    file = SafetensorsFile(path)
    stored = dequantized(HFConfig({"quantization_config": settings}, str(path)), file.tensors)
    for name, (weights, activations, held_out) in first_layer.items():
        matrix = stored[f"model.layers.0.{HF_NAMES[name]}.weight"]
        assert isinstance(matrix, QuantizedMatrix)
        theirs = output_error(weights, in_gguf_order(name, matrix.open()(0, matrix.shape[0])), held_out)
        found = gptq.quantize(weights, activations, grid_of=symmetric_grid, damping=0.05, activation_order=True)
        ours = output_error(weights, found.values, held_out)
        rounded = output_error(weights, grouped_absmax.quantize(weights, activations).values, held_out)
        print(name, theirs, ours, rounded)
        assert ours < 1.03 * theirs and theirs < rounded
    file.close()


@pytest.mark.oracle
@pytest.mark.real_model
def test_gptq_is_llm_compressors(first_layer: dict):
    """On the same grids and with the same damping: no worse, and as good to a few percent. It decomposes in float32, and a rounding that
    falls the other way changes all that follow in its row."""
    with torch_and("llmcompressor.modifiers.gptq.gptq_quantize") as (torch, module):
        from compressed_tensors.quantization import QuantizationArgs  # pyright: ignore[reportMissingImports]

        args = QuantizationArgs(num_bits=4, symmetric=False, strategy="group", group_size=64, actorder=None)
        for name, (weights, activations, held_out) in first_layer.items():
            scale, zero, _ = affine_grid(weights.reshape(len(weights), -1, 64), 4)
            x = torch.from_numpy(activations).double()
            theirs, _, fallback = module.quantize_weight(
                torch.from_numpy(weights)[None].clone(),
                (x.T @ x).float()[None],
                torch.from_numpy(scale[None, ..., 0].copy()),
                torch.from_numpy(zero[None, ..., 0].copy() - 8),  # its levels are -8 to 7
                None,
                args,
            )
            assert not fallback.any()
            values = theirs[0].numpy()
            ours = gptq.quantize(weights, activations, fixed_grid=True).values
            errors = [output_error(weights, found, held_out) for found in (ours, values)]
            print(name, errors, (np.abs(ours - values) > 1e-6).mean())
            assert 0.95 * errors[1] < errors[0] < 1.02 * errors[1]


@pytest.mark.oracle
def test_nf4_is_bitsandbytes():
    weights, activations, _ = layer(96, 320)
    with torch_and("bitsandbytes.functional") as (torch, functional):
        for double in (False, True):
            packed, state = functional.quantize_4bit(torch.from_numpy(weights), blocksize=64, quant_type="nf4", compress_statistics=double)
            theirs = functional.dequantize_4bit(packed, state).numpy()
            found = nf4.quantize(weights, activations, double=double)
            print(double, np.abs(found.values - theirs).max(), (np.abs(found.values - theirs) > 1e-6).mean())
            np.testing.assert_allclose(found.values, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.oracle
def test_llm_int8_is_bitsandbytes():
    """To the half precision that outlier columns are kept in here. Where it does what the paper does not, the data keep both the same: it
    rounds the weights of outlier columns to int8 as well, so here all lie on its levels; and lets the small activations of such columns
    count in a token's peak, so here they have none."""
    weights, activations, held_out = layer(64, 256, salient=3)
    quants, peaks = llm_int8.vector_wise(weights)
    with torch_and("bitsandbytes.functional") as (torch, functional):
        stored, stats, _ = functional.int8_vectorwise_quant(torch.from_numpy(weights).half())
        np.testing.assert_array_equal(stats.numpy(), np.abs(weights.astype(np.float16)).max(axis=1).astype(np.float32))
        on_grid = stored.numpy() * stats.numpy()[:, None] / np.float32(127)
        found = llm_int8.quantize(on_grid, activations)
        outliers = np.flatnonzero((np.abs(activations) >= 6).any(axis=0))
        x = np.clip(held_out, -5.9, 5.9)
        x[:, outliers] = np.copysign(np.maximum(np.abs(held_out[:, outliers]), 7), held_out[:, outliers])
        x_quants, x_stats, columns = functional.int8_vectorwise_quant(torch.from_numpy(x.copy()), threshold=6.0)
        np.testing.assert_array_equal(columns.numpy(), outliers)
        theirs, _ = torch.ops.bitsandbytes.int8_mixed_scaled_mm(
            torch.from_numpy(x.copy()), x_quants, stored, x_stats, stats, outlier_cols=columns
        )
        wanted = theirs.float().numpy()
        print(np.abs(found.apply(x) - wanted).max() / np.abs(wanted).max())
        np.testing.assert_allclose(found.apply(x), wanted, rtol=0, atol=5e-4 * np.abs(wanted).max())
    assert np.array_equal(quants, np.rint(quants)) and peaks.shape == (64, 1)
