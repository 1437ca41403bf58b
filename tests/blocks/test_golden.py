"""Bit equality with ggml's reference code, all of its bytes; the vectors in `formats/blocks` are a small part of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat, dequantize

from .pages import same_bits

ROOT = Path(__file__).resolve().parents[2]
NOT_THERE = ("Q8_K", "Q1_0", "Q2_0", "NVFP4")
IN_BLOCKS = [f for f in BLOCKS.values() if f.block_values > 1 and f.name not in NOT_THERE]
DECODED = [f for f in IN_BLOCKS if f.decode is not None]
ENCODED = [f for f in IN_BLOCKS if f.encode is not None]
WEIGHTED = [f for f in IN_BLOCKS if f.encode_weighted is not None]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for name in ("encode", "decode"):
        with np.load(shared / "golden" / f"{name}.npz") as arrays:
            found[name] = dict(arrays)
    return found


@pytest.mark.parametrize("block_format", DECODED, ids=lambda f: f.name)
def test_random_bytes_decode_as_in_ggml(golden: dict, block_format: BlockFormat):
    blocks = golden["decode"][f"{block_format.name}.blocks"]
    assert same_bits(dequantize(blocks, block_format), golden["decode"][f"{block_format.name}.values"])


@pytest.mark.parametrize("block_format", DECODED, ids=lambda f: f.name)
def test_encoded_weights_decode_as_in_ggml(golden: dict, block_format: BlockFormat):
    stored = golden["encode"]
    encodings = [name for name in (block_format.name, f"{block_format.name}.imatrix") if f"{name}.blocks" in stored]
    assert encodings
    for encoding in encodings:
        assert same_bits(dequantize(stored[f"{encoding}.blocks"], block_format), stored[f"{encoding}.values"]), encoding


@pytest.mark.parametrize("block_format", ENCODED, ids=lambda f: f.name)
def test_weights_encode_as_in_ggml(golden: dict, block_format: BlockFormat):
    assert block_format.encode is not None
    values = golden["encode"]["x"]
    blocks = block_format.encode(values.reshape(-1, block_format.block_values)).reshape(len(values), -1)
    assert np.array_equal(blocks, golden["encode"][f"{block_format.name}.blocks"])


@pytest.mark.parametrize("block_format", WEIGHTED, ids=lambda f: f.name)
def test_weights_encode_with_importance_as_in_ggml(golden: dict, block_format: BlockFormat):
    assert block_format.encode_weighted is not None
    stored = golden["encode"]
    blocks = block_format.encode_weighted(stored["x"], stored["importance"])
    assert np.array_equal(blocks, stored[f"{block_format.name}.imatrix.blocks"])


def test_committed_vectors_come_from_the_golden_files(shared: Path):
    pytest.importorskip("ml_dtypes")
    command = [sys.executable, str(ROOT / "tools" / "make_vectors.py"), str(shared / "golden"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
