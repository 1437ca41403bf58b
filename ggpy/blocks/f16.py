"""F16: IEEE 754 binary16, rounded to nearest even."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16 as FLOAT16
from ggpy.blocks.block_format import BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields

FIELDS = (Field("value", FLOAT16, 1),)


@np.errstate(invalid="ignore")
def decode(blocks: Blocks) -> Values:
    (value,) = split_fields(blocks, FIELDS)
    return value.astype(np.float32)


@np.errstate(over="ignore", under="ignore")
def encode(values: Values) -> Blocks:
    """Magnitudes from 65520 up become infinite, as in ggml."""
    require_finite(values, "F16")
    return join_fields(FIELDS, values.astype(np.float16))


F16 = BlockFormat("F16", 1, 1, FIELDS, decode, encode)
