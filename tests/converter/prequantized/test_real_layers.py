"""Layers that GPTQModel, bitsandbytes and llm-compressor wrote, against the rows that their own code makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ggpy.arch.hf_config import HFConfig
from ggpy.blocks import BLOCKS, dequantize
from ggpy.converter.prequantized import QuantizedMatrix, dequantized
from ggpy.converter.safetensors import SafetensorsFile

LAYERS = ("mlp.down_proj", "self_attn.k_proj", "self_attn.q_proj")
METHODS = {
    "gptq-4bit-g64": ("GPTQ 4-bit", ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")),
    "awq-4bit-g64": ("AWQ 4-bit", ("Q4_1", "Q5_0", "Q5_1", "Q8_0")),
    "bnb-nf4": ("bitsandbytes NF4", ()),
    "bnb-int8": ("bitsandbytes int8", ("Q8_0",)),
    "ct-w4": ("compressed-tensors int4", ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")),
}


def open_layer(path: Path) -> tuple[SafetensorsFile, dict[str, QuantizedMatrix]]:
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    settings = json.loads(header["__metadata__"]["quantization_config"])
    file = SafetensorsFile(path)
    found = dequantized(HFConfig({"quantization_config": settings}, str(path)), file.tensors)
    return file, {name: matrix for name, matrix in found.items() if isinstance(matrix, QuantizedMatrix)}


@pytest.mark.parametrize("name", METHODS)
def test_rows_are_those_of_the_method_itself(shared: Path, name: str):
    """To the bit; of int8, to the last bit of a float32, as its kernels multiply by the rounded 1 / 127."""
    folder = shared / "models" / "quantized"
    file, matrices = open_layer(folder / f"SmolLM2-135M-{name}.layer0.safetensors")
    expected = SafetensorsFile(folder / f"SmolLM2-135M-{name}.layer0.expected64rows.safetensors")
    method, fits = METHODS[name]
    assert set(matrices) == {f"model.layers.0.{layer}.weight" for layer in LAYERS}
    for weight, matrix in matrices.items():
        rows = expected.tensors[f"expected.{weight}"].read(0, 64)
        assert (matrix.quantized.method, matrix.quantized.fits) == (method, fits)
        np.testing.assert_allclose(matrix.open()(0, 64), rows, rtol=2.0**-23 if name == "bnb-int8" else 0, atol=0)
    file.close()
    expected.close()


@pytest.mark.parametrize("name", METHODS)
def test_repacked_rows_are_the_same_or_a_rounding_off(shared: Path, name: str):
    """Q4_0, Q5_0 and Q8_0 bit for bit where scales are half-precision numbers; else to the rounding of scale and minimum."""
    file, matrices = open_layer(shared / "models" / "quantized" / f"SmolLM2-135M-{name}.layer0.safetensors")
    for matrix in matrices.values():
        rows = matrix.open()(0, matrix.shape[0])
        span = np.ptp(rows.reshape(len(rows), -1, 64), axis=2)  # of a group: up to 15 or 255 steps
        for format, open in matrix.repacked.items():
            found = dequantize(open()(0, len(rows)), BLOCKS[format])
            if format in matrix.quantized.exact:
                np.testing.assert_array_equal(found, rows)
            else:
                errors = np.abs(found - rows).reshape(len(rows), -1, 64).max(axis=2)
                assert (errors <= 2.0**-11 * span).all() and errors.any()
    expected = {"gptq-4bit-g64": "Q4_0", "awq-4bit-g64": "Q5_0", "ct-w4": "Q4_0"}
    if name in expected:
        assert all(matrix.quantized.exact[0] == expected[name] for matrix in matrices.values())
    file.close()
