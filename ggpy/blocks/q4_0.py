"""Q4_0: 32 values, one scale, 4-bit quants around 8. value = d * (q - 8)."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import NO_MINS, ONE_SCALE, Grid, Parts, ladder, single_scale
from ggpy.blocks.block_format import (
    F16,
    U8,
    BlockFormat,
    Blocks,
    Field,
    Importance,
    Rows,
    Values,
    join_fields,
    require_finite,
    split_fields,
)
from ggpy.blocks.planes import pack_planes, unpack_planes
from ggpy.blocks.rounding import first_peak, reciprocal, truncated
from ggpy.blocks.search import symmetric_scale
from ggpy.blocks.weighting import in_rows, row_weights

FIELDS = (Field("d", F16, 1), Field("qs", U8, 16))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    return d.astype(np.float32) * (unpack_planes(qs, 4).astype(np.int8) - 8)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """The value of the largest magnitude, the first of several, becomes quant 0 exactly: d = that value / -8."""
    require_finite(values, "Q4_0")
    d = first_peak(values) / np.float32(-8)
    quants = np.minimum(truncated(values * reciprocal(d) + np.float32(8.5)), 15)
    return join_fields(FIELDS, d.astype(np.float16), pack_planes(quants, 4))


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(mean(x * x) + x * x), the mean being over the row."""
    values, weights = row_weights(rows, importance, "Q4_0", 32)
    d, quants = symmetric_scale(values, weights, 8)
    return in_rows(join_fields(FIELDS, d[:, None].astype(np.float16), pack_planes(quants, 4)), rows, 32)


def _split(blocks: Blocks) -> Parts:
    d, qs = split_fields(blocks, FIELDS)
    return single_scale(d, unpack_planes(qs, 4))


def _join(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.d, pack_planes(parts.quants, 4))


GRID = Grid(ladder(-8, 7), 32, ONE_SCALE, NO_MINS, _split, _join)
Q4_0 = BlockFormat("Q4_0", 2, 32, FIELDS, decode, encode, encode_weighted, grid=GRID)
