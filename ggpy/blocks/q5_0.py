"""Q5_0: 32 values, one scale, 5-bit quants around 16. value = d * (q - 16)."""

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
from ggpy.blocks.planes import pack_bits, pack_planes, unpack_bits, unpack_planes
from ggpy.blocks.rounding import first_peak, reciprocal, truncated
from ggpy.blocks.search import symmetric_scale
from ggpy.blocks.weighting import in_rows, row_weights

FIELDS = (Field("d", F16, 1), Field("qh", U8, 4), Field("qs", U8, 16))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qh, qs = split_fields(blocks, FIELDS)
    quants = unpack_planes(qs, 4) | (unpack_bits(qh) << 4)
    return d.astype(np.float32) * (quants.astype(np.int8) - 16)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """The value of the largest magnitude, the first of several, becomes quant 0 exactly: d = that value / -16."""
    require_finite(values, "Q5_0")
    d = first_peak(values) / np.float32(-16)
    quants = np.minimum(truncated(values * reciprocal(d) + np.float32(16.5)), 31)
    return join_fields(FIELDS, d.astype(np.float16), pack_bits(quants >> 4), pack_planes(quants & 0x0F, 4))


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(mean(x * x) + x * x), the mean being over the row."""
    values, weights = row_weights(rows, importance, "Q5_0", 32)
    d, quants = symmetric_scale(values, weights, 16)
    return in_rows(join_fields(FIELDS, d[:, None].astype(np.float16), pack_bits(quants >> 4), pack_planes(quants & 0x0F, 4)), rows, 32)


def _split(blocks: Blocks) -> Parts:
    d, qh, qs = split_fields(blocks, FIELDS)
    return single_scale(d, unpack_planes(qs, 4) | (unpack_bits(qh) << 4))


def _join(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.d, pack_bits(parts.quants >> 4), pack_planes(parts.quants & 0x0F, 4))


GRID = Grid(ladder(-16, 15), 32, ONE_SCALE, NO_MINS, _split, _join)
Q5_0 = BlockFormat("Q5_0", 6, 32, FIELDS, decode, encode, encode_weighted, grid=GRID)
