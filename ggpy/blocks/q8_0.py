"""Q8_0: 32 values, one scale, int8 quants. value = d * q."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import NO_MINS, ONE_SCALE, Grid, Parts, ladder, single_scale
from ggpy.blocks.block_format import F16, I8, BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields
from ggpy.blocks.rounding import half_away, reciprocal

FIELDS = (Field("d", F16, 1), Field("qs", I8, 32))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    return d.astype(np.float32) * qs


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """The largest magnitude becomes 127 or -127; quants round halves away from zero."""
    require_finite(values, "Q8_0")
    d = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    return join_fields(FIELDS, d.astype(np.float16), half_away(values * reciprocal(d)))


def _split(blocks: Blocks) -> Parts:
    d, qs = split_fields(blocks, FIELDS)
    return single_scale(d, qs.view(np.uint8) ^ np.uint8(128))


def _join(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.d, (parts.quants ^ np.uint8(128)).view(np.int8))


GRID = Grid(ladder(-128, 127), 32, ONE_SCALE, NO_MINS, _split, _join)
Q8_0 = BlockFormat("Q8_0", 8, 32, FIELDS, decode, encode, grid=GRID)
