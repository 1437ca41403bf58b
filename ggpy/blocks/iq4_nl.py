"""IQ4_NL: 32 values, one scale, 4-bit indices of sixteen uneven levels. value = d * level[q]."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import NO_MINS, ONE_SCALE, Grid, Parts, single_scale
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
from ggpy.blocks.levels import LEVELS, level_scale, nearest_level
from ggpy.blocks.planes import pack_planes, unpack_planes
from ggpy.blocks.rounding import reciprocal
from ggpy.blocks.weighting import in_rows, weighted_blocks, weights_of

FIELDS = (Field("d", F16, 1), Field("qs", U8, 16))


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    return d.astype(np.float32) * LEVELS[unpack_planes(qs, 4)]


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """A value x has the weight x * x."""
    require_finite(values, "IQ4_NL")
    return _encode(values, values * values)


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(2 * mean(x * x) + x * x), the mean being over the block."""
    values, spread = weighted_blocks(rows, importance, "IQ4_NL", 32)
    return in_rows(_encode(values, weights_of(values, spread, np.float32(2))), rows, 32)


def _encode(values: Values, weights: np.ndarray) -> Blocks:
    d = level_scale(values, weights)[:, None]
    return join_fields(FIELDS, d.astype(np.float16), pack_planes(nearest_level(values * reciprocal(d)), 4))


def _split(blocks: Blocks) -> Parts:
    d, qs = split_fields(blocks, FIELDS)
    return single_scale(d, unpack_planes(qs, 4))


def _join(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.d, pack_planes(parts.quants, 4))


GRID = Grid(LEVELS, 32, ONE_SCALE, NO_MINS, _split, _join)
IQ4_NL = BlockFormat("IQ4_NL", 20, 32, FIELDS, decode, encode, encode_weighted, grid=GRID)
