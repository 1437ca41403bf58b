"""Random weights in any block format, for measuring: speed does not depend on the values, as long as they are ordinary."""

from __future__ import annotations

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.runtime.encode import encode_rows

DEVIATION = 0.02  # what training starts from
SLAB_VALUES = 1 << 20  # encoded once, then repeated: enough that scales vary


def random_slab(block_format: BlockFormat, rows: int, cols: int, rng: np.random.Generator, threads: int = 1) -> np.ndarray:
    """uint8 (at most `rows`, row bytes): about a million gaussian values of deviation 0.02, encoded.

    A format that ggpy cannot write gets random integers under scales of like size. ValueError: a row is not a whole number of blocks.
    """
    row_bytes = block_format.row_bytes(cols)
    rows = min(rows, max(1, SLAB_VALUES // cols))
    if block_format.encode is None:
        return _random_fields(block_format, rows * row_bytes // block_format.block_bytes, rng).reshape(rows, row_bytes)
    values = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(DEVIATION)
    return encode_rows(values, block_format, threads)


def random_blocks(block_format: BlockFormat, rows: int, cols: int, rng: np.random.Generator, threads: int = 1) -> np.ndarray:
    """uint8 (rows, row bytes): a slab, repeated as often as it takes."""
    slab = random_slab(block_format, rows, cols, rng, threads)
    return np.resize(slab, (rows, slab.shape[1]))


def _random_fields(block_format: BlockFormat, n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (n_blocks, block bytes)"""
    deviation = DEVIATION / 8 if block_format.name.startswith("IQ1") else DEVIATION / 64  # of scales: those grids hold 1 at the most
    blocks, start = rng.integers(0, 256, (n_blocks, block_format.block_bytes), dtype=np.uint8), 0
    for field in block_format.fields:
        if field.dtype.kind == "f":
            scales = rng.normal(0, deviation, (n_blocks, field.count)).astype(field.dtype)
            blocks[:, start : start + field.n_bytes] = scales.view(np.uint8)
        elif (block_format.name, field.name) == ("IQ1_M", "scales"):  # the upper nibbles of its words are a float16
            bits = rng.normal(0, deviation, (n_blocks, 1)).astype("<f2").view("<u2")
            words = blocks[:, start : start + field.n_bytes].view("<u2")
            words[:] = words & 0x0FFF | (bits >> np.arange(0, 16, 4, dtype=np.uint16) & 15) << 12
        start += field.n_bytes
    return blocks
