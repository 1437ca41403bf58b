"""The `gguf` package's opinion: ids, sizes, decoding of all formats it knows, encoding of those it can write."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BY_TYPE, dequantize, grids

from .pages import same_bits

gguf = pytest.importorskip("gguf")

THEIRS = {kind.name: kind for kind in gguf.GGMLQuantizationType}
SHARED_NAMES = sorted(set(THEIRS) & set(BLOCKS))
NOT_DECODED_THERE = {"Q1_0", "Q2_0"}
PLAIN = {"F64", "I8", "I16", "I32", "I64"}
DECODED = [name for name in SHARED_NAMES if BLOCKS[name].decode is not None and name not in PLAIN | NOT_DECODED_THERE | {"Q8_K"}]
WRITTEN_BY_BOTH = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def test_every_type_it_knows_is_in_the_table():
    assert {int(kind) for kind in THEIRS.values()} <= set(BY_TYPE)


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_ids_and_sizes_agree(name: str):
    values, n_bytes = gguf.GGML_QUANT_SIZES[THEIRS[name]]
    if name == "Q8_1":  # it counts the two scales as float32; ggml.h has had binary16 there since 2024
        n_bytes -= 4
    assert (BLOCKS[name].ggml_type, BLOCKS[name].block_values, BLOCKS[name].block_bytes) == (int(THEIRS[name]), values, n_bytes)


@pytest.mark.parametrize("name", DECODED)
def test_random_bytes_decode_alike(name: str):
    data = np.random.default_rng(5).integers(0, 256, (64, 4 * BLOCKS[name].block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(data, THEIRS[name])
    assert same_bits(dequantize(data, BLOCKS[name]), np.ascontiguousarray(theirs, np.float32))


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_grids_are_the_same(name: str):
    theirs = getattr(gguf.quants, name)
    theirs.init_grid()
    assert np.array_equal(getattr(grids, name).groups, theirs.grid.reshape(theirs.grid_shape))


@pytest.mark.parametrize("name", WRITTEN_BY_BOTH)
def test_weights_encode_alike(name: str):
    values = np.random.default_rng(6).standard_normal((64, 256)).astype(np.float32)
    encode = BLOCKS[name].encode
    assert encode is not None
    ours = encode(values.reshape(-1, BLOCKS[name].block_values)).reshape(64, -1)
    assert np.array_equal(ours, gguf.quants.quantize(values, THEIRS[name]).view(np.uint8))
