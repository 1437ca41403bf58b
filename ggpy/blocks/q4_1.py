"""Q4_1: 32 values, one scale, one minimum, 4-bit quants. value = d * q + m."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import ONE_OFFSET, ONE_SCALE, Grid, Parts, ladder, single_offset
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
from ggpy.blocks.rounding import first_extremes, reciprocal, truncated
from ggpy.blocks.search import Search, affine_scale
from ggpy.blocks.weighting import in_rows, row_weights

FIELDS = (Field("d", F16, 1), Field("m", F16, 1), Field("qs", U8, 16))
WEIGHTED_SEARCH = Search(largest=15, first=-0.9, step=0.05, steps=37)


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, m, qs = split_fields(blocks, FIELDS)
    return d.astype(np.float32) * unpack_planes(qs, 4) + m.astype(np.float32)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """Smallest and largest value become quants 0 and 15."""
    require_finite(values, "Q4_1")
    low, high = first_extremes(values)
    d = (high - low) / np.float32(15)
    quants = np.minimum(truncated((values - low) * reciprocal(d) + np.float32(0.5)), 15)
    return join_fields(FIELDS, d.astype(np.float16), low.astype(np.float16), pack_planes(quants, 4))


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(mean(x * x) + x * x), the mean being over the row."""
    values, weights = row_weights(rows, importance, "Q4_1", 32)
    d, minimum, quants = affine_scale(values, weights, WEIGHTED_SEARCH)
    m = -minimum[:, None]
    blocks = join_fields(FIELDS, d[:, None].astype(np.float16), m.astype(np.float16), pack_planes(quants, 4))
    return in_rows(blocks, rows, 32)


def _split(blocks: Blocks) -> Parts:
    d, m, qs = split_fields(blocks, FIELDS)
    return single_offset(d, m, unpack_planes(qs, 4))


def _join(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.d, parts.dmin, pack_planes(parts.quants, 4))


GRID = Grid(ladder(0, 15), 32, ONE_SCALE, ONE_OFFSET, _split, _join)
Q4_1 = BlockFormat("Q4_1", 3, 32, FIELDS, decode, encode, encode_weighted, grid=GRID)
