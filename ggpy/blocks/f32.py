"""F32: IEEE 754 binary32, as it is."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F32 as FLOAT32
from ggpy.blocks.block_format import BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields

FIELDS = (Field("value", FLOAT32, 1),)


def decode(blocks: Blocks) -> Values:
    (value,) = split_fields(blocks, FIELDS)
    return value.astype(np.float32)


def encode(values: Values) -> Blocks:
    require_finite(values, "F32")
    return join_fields(FIELDS, values)


F32 = BlockFormat("F32", 0, 1, FIELDS, decode, encode)
