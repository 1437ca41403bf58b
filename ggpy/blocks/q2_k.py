"""Q2_K: 256 values in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit min; 2-bit quants.

value = (d * scale) * q - (dmin * min)
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import Grid, Parts, ladder
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
from ggpy.blocks.rounding import nearest_int, running_sum
from ggpy.blocks.scale_min import in_units
from ggpy.blocks.search import Search, affine_scale, positive_scale
from ggpy.blocks.weighting import in_rows, weighted_blocks, weights_of

FIELDS = (Field("scales", U8, 16), Field("qs", U8, 64), Field("d", F16, 1), Field("dmin", F16, 1))
SUB_BLOCKS, SUB_VALUES = 16, 16
FOUR_BITS = 15
SEARCH = Search(largest=3, first=-0.5, step=0.1, steps=16, absolute=True)
WEIGHTED_SEARCH = Search(largest=3, first=-0.9, step=0.05, steps=37)


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    scales, qs, d, dmin = split_fields(blocks, FIELDS)
    scale = d.astype(np.float32) * (scales & 0x0F)  # (n, 16)
    minimum = dmin.astype(np.float32) * (scales >> 4)
    quants = unpack_planes(qs, 2).reshape(-1, SUB_BLOCKS, SUB_VALUES)
    return (scale[..., None] * quants - minimum[..., None]).reshape(-1, 256)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """A value x has the weight |x|, and errors count by their magnitude."""
    require_finite(values, "Q2_K")
    x = values.reshape(-1, SUB_VALUES)
    scale, minimum, quants = affine_scale(x, np.abs(x), SEARCH)
    unit, scales = in_units(scale.reshape(-1, SUB_BLOCKS), FOUR_BITS)
    unit_min, mins = in_units(minimum.reshape(-1, SUB_BLOCKS), FOUR_BITS)
    return _join(values, unit, unit_min, scales | (mins << 4), quants)


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(mean(x * x) + x * x), the mean being over the super-block."""
    values, spread = weighted_blocks(rows, importance, "Q2_K", 256)
    weights = weights_of(values, spread, np.float32(1)).reshape(-1, SUB_VALUES)
    scale, minimum, quants = affine_scale(values.reshape(-1, SUB_VALUES), weights, WEIGHTED_SEARCH)
    sums = running_sum(weights).reshape(-1, SUB_BLOCKS)
    unit, scales = positive_scale(scale.reshape(-1, SUB_BLOCKS), sums, FOUR_BITS)
    unit_min, mins = positive_scale(minimum.reshape(-1, SUB_BLOCKS), sums, FOUR_BITS)
    return in_rows(_join(values, unit[:, None], unit_min[:, None], scales | (mins << 4), quants), rows, 256)


def _join(values: Values, unit: np.ndarray, unit_min: np.ndarray, scales: np.ndarray, quants: np.ndarray) -> Blocks:
    """Blocks of scales and mins, two to a byte (n, 16), under their units (n, 1); quants are new where the stored scale is not 0."""
    d, dmin = unit.astype(np.float16), unit_min.astype(np.float16)
    scale = (d.astype(np.float32) * (scales & 0x0F)).reshape(-1, 1)
    minimum = (dmin.astype(np.float32) * (scales >> 4)).reshape(-1, 1)
    rounded = nearest_int((values.reshape(-1, SUB_VALUES) + minimum) / scale).clip(0, SEARCH.largest)
    quants = np.where(scale == 0, quants, rounded).reshape(values.shape)
    return join_fields(FIELDS, scales, pack_planes(quants, 2), d, dmin)


def _split(blocks: Blocks) -> Parts:
    scales, qs, d, dmin = split_fields(blocks, FIELDS)
    return Parts(d, dmin, (scales & 0x0F).astype(np.int32), (scales >> 4).astype(np.int32), unpack_planes(qs, 2))


def _join_parts(parts: Parts) -> Blocks:
    return join_fields(FIELDS, parts.scales | (parts.mins << 4), pack_planes(parts.quants, 2), parts.d, parts.dmin)


GRID = Grid(ladder(0, 3), SUB_VALUES, range(16), range(16), _split, _join_parts)
Q2_K = BlockFormat("Q2_K", 10, 256, FIELDS, decode, encode, encode_weighted, grid=GRID)
