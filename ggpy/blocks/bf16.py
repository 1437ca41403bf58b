"""BF16: the upper half of IEEE 754 binary32, rounded to nearest even."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import U16, BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields

FIELDS = (Field("value", U16, 1),)


def decode(blocks: Blocks) -> Values:
    (upper,) = split_fields(blocks, FIELDS)
    return (upper.astype(np.uint32) << 16).view(np.float32)


def encode(values: Values) -> Blocks:
    """Magnitudes that round past the largest BF16 become infinite, as in ggml."""
    require_finite(values, "BF16")
    bits = np.ascontiguousarray(values).view(np.uint32)
    to_nearest_even = 0x7FFF + ((bits >> 16) & 1)
    return join_fields(FIELDS, (bits + to_nearest_even) >> 16)


BF16 = BlockFormat("BF16", 30, 1, FIELDS, decode, encode)
