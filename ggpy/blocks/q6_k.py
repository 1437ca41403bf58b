"""Q6_K: 256 values in 16 sub-blocks of 16, each with an int8 scale; 6-bit quants around 32.

value = (d * scale) * (q - 32)
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.affine_grid import NO_MINS, Grid, Parts, ladder, scales_only
from ggpy.blocks.block_format import (
    F16,
    I8,
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
from ggpy.blocks.rounding import first_peak, nearest_int
from ggpy.blocks.search import NOTHING, symmetric_scale
from ggpy.blocks.weighting import in_rows, weighted_blocks

FIELDS = (Field("ql", U8, 128), Field("qh", U8, 64), Field("scales", I8, 16), Field("d", F16, 1))
SUB_BLOCKS, SUB_VALUES = 16, 16
CENTRE = 32


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    ql, qh, scales, d = split_fields(blocks, FIELDS)
    scale = d.astype(np.float32) * scales  # (n, 16)
    quants = (unpack_planes(ql, 4, row=64) | (unpack_planes(qh, 2) << 4)).astype(np.int8) - CENTRE
    return (scale[..., None] * quants.reshape(-1, SUB_BLOCKS, SUB_VALUES)).reshape(-1, 256)


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    require_finite(values, "Q6_K")
    return _encode(values, values * values)


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    values, weights = weighted_blocks(rows, importance, "Q6_K", 256)
    return in_rows(_encode(values, weights), rows, 256)


def _encode(values: Values, weights: np.ndarray) -> Blocks:
    """Blocks of `values`, an error at each of which counts by `weights`, float32 (n, 256)."""
    sub_blocks = values.reshape(-1, SUB_VALUES)
    found, quants = symmetric_scale(sub_blocks, weights.reshape(-1, SUB_VALUES), CENTRE)
    found = found.reshape(len(values), SUB_BLOCKS)

    peak = first_peak(found)  # past NaN, of sums that overflow for huge values
    empty = np.abs(peak) < NOTHING
    inverse = np.float32(-128) / peak
    d = (np.float32(1) / inverse).astype(np.float16)
    scales = np.minimum(nearest_int(inverse * found), 127).astype(np.int8)

    stored = (d.astype(np.float32) * scales).reshape(-1, 1)
    rounded = nearest_int(sub_blocks / stored).clip(-CENTRE, CENTRE - 1) + CENTRE
    quants = np.where(stored == 0, quants, rounded).reshape(values.shape)
    blocks = join_fields(FIELDS, pack_planes(quants & 0x0F, 4, row=64), pack_planes(quants >> 4, 2), scales, d)
    return np.where(empty, np.uint8(0), blocks)


def _split(blocks: Blocks) -> Parts:
    ql, qh, scales, d = split_fields(blocks, FIELDS)
    return scales_only(d, scales, unpack_planes(ql, 4, row=64) | (unpack_planes(qh, 2) << 4))


def _join(parts: Parts) -> Blocks:
    low, high = pack_planes(parts.quants & 0x0F, 4, row=64), pack_planes(parts.quants >> 4, 2)
    return join_fields(FIELDS, low, high, parts.scales, parts.d)


GRID = Grid(ladder(-CENTRE, CENTRE - 1), SUB_VALUES, range(-128, 128), NO_MINS, _split, _join)
Q6_K = BlockFormat("Q6_K", 14, 256, FIELDS, decode, encode, encode_weighted, grid=GRID)
