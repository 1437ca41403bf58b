"""Q3_K: 256 values in 16 sub-blocks of 16, each with a 6-bit scale around 32; 3-bit quants around 4.

value = (d * (scale - 32)) * (q - 4)
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import NO_MINS, Grid, Parts, ladder, scales_only
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
from ggpy.blocks.rounding import first_peak, nearest_int, running_sum
from ggpy.blocks.search import refined_scale, symmetric_scale
from ggpy.blocks.weighting import in_rows, weighted_blocks, weights_of

FIELDS = (Field("hmask", U8, 32), Field("qs", U8, 64), Field("scales", U8, 12), Field("d", F16, 1))
SUB_BLOCKS, SUB_VALUES = 16, 16
CENTRE, SCALE_CENTRE = 4, 32


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    hmask, qs, scales, d = split_fields(blocks, FIELDS)
    six_bits = unpack_planes(scales[:, :8], 4) | (unpack_planes(scales[:, 8:], 2) << 4)
    scale = d.astype(np.float32) * (six_bits.astype(np.int8) - SCALE_CENTRE)  # (n, 16)
    quants = (unpack_planes(qs, 2) | (unpack_planes(hmask, 1) << 2)).astype(np.int8) - CENTRE
    return (scale[..., None] * quants.reshape(-1, SUB_BLOCKS, SUB_VALUES)).reshape(-1, 256)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    require_finite(values, "Q3_K")
    found, quants = refined_scale(values.reshape(-1, SUB_VALUES), CENTRE)
    found = found.reshape(-1, SUB_BLOCKS)
    peak = first_peak(found)  # past NaN, of sums that overflow for huge values
    inverse = np.float32(-SCALE_CENTRE) / peak
    scales = nearest_int(inverse * found).astype(np.int8).clip(-SCALE_CENTRE, SCALE_CENTRE - 1).astype(np.int32) + SCALE_CENTRE
    empty = peak == 0
    return _join(values, np.where(empty, np.float32(0), np.float32(1) / inverse), np.where(empty, 0, scales), quants)


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    """A value x has the weight importance * sqrt(2 * mean(x * x) + x * x), the mean being over the super-block."""
    values, spread = weighted_blocks(rows, importance, "Q3_K", 256)
    weights = weights_of(values, spread, np.float32(2)).reshape(-1, SUB_VALUES)
    found, quants = symmetric_scale(values.reshape(-1, SUB_VALUES), weights, CENTRE)
    sums = running_sum(weights).reshape(-1, SUB_BLOCKS)
    unit, scales = symmetric_scale(found.reshape(-1, SUB_BLOCKS), sums, SCALE_CENTRE)
    return in_rows(_join(values, unit[:, None], scales, quants), rows, 256)


def _join(values: Values, unit: np.ndarray, scales: np.ndarray, quants: np.ndarray) -> Blocks:
    """Blocks of scales 0..63 (n, 16) under `unit` (n, 1); the quants are chosen anew where the stored scale is not 0."""
    d = unit.astype(np.float16)
    stored = (d.astype(np.float32) * (scales - SCALE_CENTRE).astype(np.float32)).reshape(-1, 1)
    rounded = nearest_int(values.reshape(-1, SUB_VALUES) / stored).clip(-CENTRE, CENTRE - 1) + CENTRE
    quants = np.where(stored == 0, quants, rounded).reshape(values.shape)
    packed = np.concatenate((pack_planes(scales & 0x0F, 4), pack_planes(scales >> 4, 2)), axis=1)
    return join_fields(FIELDS, pack_planes(quants >> 2, 1), pack_planes(quants & 3, 2), packed, d)


def _split(blocks: Blocks) -> Parts:
    hmask, qs, scales, d = split_fields(blocks, FIELDS)
    six_bits = unpack_planes(scales[:, :8], 4) | (unpack_planes(scales[:, 8:], 2) << 4)
    return scales_only(d, six_bits.astype(np.int32) - SCALE_CENTRE, unpack_planes(qs, 2) | (unpack_planes(hmask, 1) << 2))


def _join_parts(parts: Parts) -> Blocks:
    scales = parts.scales + SCALE_CENTRE
    packed = np.concatenate((pack_planes(scales & 0x0F, 4), pack_planes(scales >> 4, 2)), axis=1)
    return join_fields(FIELDS, pack_planes(parts.quants >> 2, 1), pack_planes(parts.quants & 3, 2), packed, parts.d)


GRID = Grid(ladder(-4, 3), SUB_VALUES, range(-32, 32), NO_MINS, _split, _join_parts)
Q3_K = BlockFormat("Q3_K", 11, 256, FIELDS, decode, encode, encode_weighted, grid=GRID)
