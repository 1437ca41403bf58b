"""Q5_K: 256 values in 8 sub-blocks of 32, each with a 6-bit scale and a 6-bit min; 5-bit quants.

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
from ggpy.blocks.scale_min import SUB_VALUES, apply_scale_min, find_scale_min, find_weighted_scale_min, pack_scale_min, unpack_scale_min
from ggpy.blocks.search import Search
from ggpy.blocks.weighting import in_rows, weighted_blocks

FIELDS = (Field("d", F16, 1), Field("dmin", F16, 1), Field("scales", U8, 12), Field("qh", U8, 32), Field("qs", U8, 128))
SEARCH = Search(largest=31, first=-0.5, step=0.1, steps=16)
WEIGHTED_SEARCH = Search(largest=31, first=-0.9, step=0.05, steps=37)


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    d, dmin, scales, qh, qs = split_fields(blocks, FIELDS)
    return apply_scale_min(d, dmin, scales, unpack_planes(qs, 4) | (unpack_planes(qh, 1) << 4))


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    require_finite(values, "Q5_K")
    d, dmin, scales, quants = find_scale_min(values, SEARCH)
    return join_fields(FIELDS, d, dmin, scales, pack_planes(quants >> 4, 1), pack_planes(quants & 0x0F, 4))


@np.errstate(all="ignore")
def encode_weighted(rows: Rows, importance: Importance) -> Blocks:
    values, weights = weighted_blocks(rows, importance, "Q5_K", 256)
    d, dmin, scales, quants = find_weighted_scale_min(values, weights, WEIGHTED_SEARCH, clamped=True)
    blocks = join_fields(FIELDS, d, dmin, scales, pack_planes(quants >> 4, 1), pack_planes(quants & 0x0F, 4))
    return in_rows(blocks, rows, 256)


def _split(blocks: Blocks) -> Parts:
    d, dmin, packed, qh, qs = split_fields(blocks, FIELDS)
    scales, mins = unpack_scale_min(packed)
    return Parts(d, dmin, scales.astype(np.int32), mins.astype(np.int32), unpack_planes(qs, 4) | (unpack_planes(qh, 1) << 4))


def _join(parts: Parts) -> Blocks:
    high, low = pack_planes(parts.quants >> 4, 1), pack_planes(parts.quants & 0x0F, 4)
    return join_fields(FIELDS, parts.d, parts.dmin, pack_scale_min(parts.scales, parts.mins), high, low)


GRID = Grid(ladder(0, 31), SUB_VALUES, range(64), range(64), _split, _join)
Q5_K = BlockFormat("Q5_K", 13, 256, FIELDS, decode, encode, encode_weighted, grid=GRID)
