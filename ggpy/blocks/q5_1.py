"""Q5_1: 32 values, one scale, one minimum, 5-bit quants. value = d * q + m."""

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
from ggpy.blocks.planes import pack_bits, pack_planes, unpack_bits, unpack_planes
from ggpy.blocks.rounding import first_extremes, reciprocal, truncated
from ggpy.blocks.search import Search, affine_scale
from ggpy.blocks.weighting import in_rows, row_weights

FIELDS = (Field("d", F16, 1), Field("m", F16, 1), Field("qh", U8, 4), Field("qs", U8, 16))
WEIGHTED_SEARCH = Search(largest=31, first=-0.9, step=0.05, steps=37)


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, m, qh, qs = split_fields(blocks, FIELDS)
    quants = unpack_planes(qs, 4) | (unpack_bits(qh) << 4)
    return d.astype(np.float32) * quants + m.astype(np.float32)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """Smallest and largest value become quants 0 and 31."""
    require_finite(values, "Q5_1")
    low, high = first_extremes(values)
    d = (high - low) / np.float32(31)
    quants = truncated((values - low) * reciprocal(d) + np.float32(0.5))
    return join_fields(FIELDS, d.astype(np.float16), low.astype(np.float16), pack_bits(quants >> 4), pack_planes(quants & 0x0F, 4))


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(mean(x * x) + x * x), the mean being over the row."""
    values, weights = row_weights(rows, importance, "Q5_1", 32)
    d, minimum, quants = affine_scale(values, weights, WEIGHTED_SEARCH)
    m = -minimum[:, None]
    blocks = join_fields(FIELDS, d[:, None].astype(np.float16), m.astype(np.float16), pack_bits(quants >> 4), pack_planes(quants & 0x0F, 4))
    return in_rows(blocks, rows, 32)


def _split(blocks: Blocks) -> Parts:
    d, m, qh, qs = split_fields(blocks, FIELDS)
    return single_offset(d, m, unpack_planes(qs, 4) | (unpack_bits(qh) << 4))


def _join(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.d, parts.dmin, pack_bits(parts.quants >> 4), pack_planes(parts.quants & 0x0F, 4))


GRID = Grid(ladder(0, 31), 32, ONE_SCALE, ONE_OFFSET, _split, _join)
Q5_1 = BlockFormat("Q5_1", 7, 32, FIELDS, decode, encode, encode_weighted, grid=GRID)
