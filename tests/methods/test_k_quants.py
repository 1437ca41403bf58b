"""GGUF's formats as methods: the bytes are those of `ggpy.blocks`."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, dequantize
from ggpy.methods import k_quants
from ggpy.runtime.encode import encode_rows

from .layers import layer, output_error


@pytest.mark.parametrize("format", ["Q4_0", "Q4_K"])
@pytest.mark.parametrize("important", [False, True])
def test_values_are_those_a_converted_file_has(format: str, important: bool):
    weights, activations, _ = layer(8, 512)
    importance = np.square(activations).mean(axis=0) if important else None
    blocks = encode_rows(weights, BLOCKS[format], importance=importance)
    found = k_quants.quantize(weights, activations, format=format, important=important)
    np.testing.assert_array_equal(found.values, dequantize(blocks, BLOCKS[format]))
    assert found.bits == 8 * blocks.size / weights.size


def test_importance_pays_where_columns_differ():
    weights, activations, held_out = layer(16, 512, salient=10)
    plain, important = (k_quants.quantize(weights, activations, important=i).values for i in (False, True))
    assert output_error(weights, important, held_out) < 0.8 * output_error(weights, plain, held_out)
