"""IQ4_XS: 256 values in 8 sub-blocks of 32, each with a 6-bit scale around 32; 4-bit indices of sixteen uneven levels.

value = (d * (scale - 32)) * level[q]
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import NO_MINS, Grid, Parts, scales_only
from ggpy.blocks.block_format import (
    F16,
    U8,
    U16,
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
from ggpy.blocks.rounding import first_peak, nearest_int, reciprocal
from ggpy.blocks.weighting import in_rows, weighted_blocks, weights_of

FIELDS = (Field("d", F16, 1), Field("scales_h", U16, 1), Field("scales_l", U8, 4), Field("qs", U8, 128))
SUB_BLOCKS, SUB_VALUES = 8, 32
CENTRE = 32
HIGH_SHIFTS = np.arange(0, 16, 2, dtype=np.uint16)  # where in scales_h the high two bits of each scale are


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, scales_h, scales_l, qs = split_fields(blocks, FIELDS)
    low = unpack_planes(scales_l, 4, row=1).astype(np.int32)
    scales = (low | (((scales_h >> HIGH_SHIFTS) & 3) << 4)) - CENTRE
    scale = d.astype(np.float32) * scales.astype(np.float32)  # (n, 8)
    levels = LEVELS[unpack_planes(qs, 4, row=16)].reshape(-1, SUB_BLOCKS, SUB_VALUES)
    return (scale[..., None] * levels).reshape(-1, 256)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """A value x has the weight x * x."""
    require_finite(values, "IQ4_XS")
    return _encode(values, values * values)


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(2 * mean(x * x) + x * x), the mean being over the super-block."""
    values, spread = weighted_blocks(rows, importance, "IQ4_XS", 256)
    return in_rows(_encode(values, weights_of(values, spread, np.float32(2))), rows, 256)


def _encode(values: Values, weights: np.ndarray) -> Blocks:
    x = values.reshape(-1, SUB_VALUES)
    found = level_scale(x, weights.reshape(-1, SUB_VALUES)).reshape(-1, SUB_BLOCKS)
    d = -first_peak(found) / np.float32(CENTRE)
    scales = nearest_int(reciprocal(d) * found).clip(-CENTRE, CENTRE - 1)
    quants = nearest_level(x * reciprocal(d * scales.astype(np.float32)).reshape(-1, 1)).reshape(values.shape)
    scales += CENTRE
    high = np.bitwise_or.reduce((scales >> 4) << HIGH_SHIFTS, axis=1, keepdims=True)
    return join_fields(FIELDS, d.astype(np.float16), high, pack_planes(scales & 0x0F, 4, row=1), pack_planes(quants, 4, row=16))


def _split(blocks: Blocks) -> Parts:
    d, scales_h, scales_l, qs = split_fields(blocks, FIELDS)
    low = unpack_planes(scales_l, 4, row=1).astype(np.int32)
    return scales_only(d, (low | (((scales_h >> HIGH_SHIFTS) & 3) << 4)) - CENTRE, unpack_planes(qs, 4, row=16))


def _join(parts: Parts) -> Blocks:
    scales = parts.scales + CENTRE
    high = np.bitwise_or.reduce((scales >> 4) << HIGH_SHIFTS, axis=1, keepdims=True)
    return join_fields(FIELDS, parts.d, high, pack_planes(scales & 0x0F, 4, row=1), pack_planes(parts.quants, 4, row=16))


GRID = Grid(LEVELS, SUB_VALUES, range(-CENTRE, CENTRE), NO_MINS, _split, _join)
IQ4_XS = BlockFormat("IQ4_XS", 23, 256, FIELDS, decode, encode, encode_weighted, grid=GRID)
