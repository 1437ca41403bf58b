"""TQ2_0: 256 values, one scale, each quant -1, 0 or 1 in two bits. value = (q - 1) * d."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields
from ggpy.blocks.planes import pack_planes, unpack_planes
from ggpy.blocks.rounding import half_away, reciprocal

FIELDS = (Field("qs", U8, 64), Field("d", F16, 1))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    """A quant of 3, which no encoder writes, is 2."""
    qs, d = split_fields(blocks, FIELDS)
    return (unpack_planes(qs, 2).astype(np.int8) - 1) * d.astype(np.float32)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """The largest magnitude becomes 1 or -1; quants round halves away from zero."""
    require_finite(values, "TQ2_0")
    d = np.abs(values).max(axis=1, keepdims=True)
    return join_fields(FIELDS, pack_planes(half_away(values * reciprocal(d)) + 1, 2), d.astype(np.float16))


TQ2_0 = BlockFormat("TQ2_0", 35, 256, FIELDS, decode, encode)
