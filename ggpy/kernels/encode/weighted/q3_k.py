"""Q3_K with importance: a lane for each sub-block of a few super-blocks, which finds its scale; then, of as many super-blocks as there are
lanes, a lane for each, which finds the number whose multiples stand for the scales."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q3_k import CENTRE, Q3_K, SCALE_CENTRE
from ggpy.blocks.search import NOTHING
from ggpy.kernels.encode import symmetric
from ggpy.kernels.encode.chunks import FROM_F32
from ggpy.kernels.encode.q3_k import BLOCK_BYTES, SUB_BLOCK_BYTES, SUB_VECTORS, SUPER_BLOCK_BYTES, TOGETHER, D, block_storing
from ggpy.kernels.encode.rounding import nearest_scalar
from ggpy.kernels.encode.symmetric import symmetric_quants, symmetric_search
from ggpy.kernels.encode.weighted.chunks import by_blocks
from ggpy.kernels.encode.weighted.weights import mean_squares, store_super_block_weights, sum_of_weights
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32, store_f16, store_u8

FIELD = 64 * LANES  # bytes of what is found for sixteen sub-blocks of a group of super-blocks
SUMS = symmetric.FIELDS * FIELD  # where sums of weights begin

_, _kept_quants = symmetric_quants(16, CENTRE)
_store_block = block_storing(_kept_quants)
_find, _find_multiples = symmetric_search(16, CENTRE), symmetric_search(16, SCALE_CENTRE, finite=False)

_lanes = scratch(3 * SUB_VECTORS)  # values, weights, products of both
_means, _weights = scratch(4 * LANES), scratch(SUPER_BLOCK_BYTES * TOGETHER)
_found, _units, _sixes = scratch(SUMS + FIELD), scratch(symmetric.FIELDS * VECTOR_BYTES), scratch(16)


@inline
def _store_products(lanes):
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        store_wide(lanes + 2 * SUB_VECTORS + i, load_wide(lanes + i) * load_wide(lanes + SUB_VECTORS + i))


@inline
def _find_sub_blocks(source, count, block, about, found):
    """Scales and sums of weights of all sub-blocks of a group."""
    lanes, means, weights = _lanes(), _means(), _weights()
    mean_squares(source, FROM_F32, 256, LANES, np.float32(2), np.float32(256), means)
    place = (about[0], about[1], block)
    for first in range(0, count, TOGETHER):
        store_super_block_weights(source, count, first, place, means, weights, TOGETHER)
        to_lanes(source + SUPER_BLOCK_BYTES * first, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
        to_lanes(weights, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes + SUB_VECTORS)
        _store_products(lanes)
        store_wide(found + SUMS + 64 * first, sum_of_weights(lanes + SUB_VECTORS, SUB_VECTORS))
        _find(lanes, found + 64 * first, FIELD)


@inline
def _multiple(inverse, most, value):
    """0..63, for -32..31 times the unit."""
    if most < NOTHING:
        return 0
    return min(max(nearest_scalar(inverse * value), -SCALE_CENTRE), SCALE_CENTRE - 1) + SCALE_CENTRE


@inline
def _encode_together(source, target, count, block, about):
    lanes, found, units, sixes = _lanes(), _found(), _units(), _sixes()
    _find_sub_blocks(source, count, block, about, found)
    to_lanes(found, 64, 64, lanes)
    to_lanes(found + SUMS, 64, 64, lanes + SUB_VECTORS)
    _store_products(lanes)
    _find_multiples(lanes, units, VECTOR_BYTES)
    for i in range(count):
        unit = units + 4 * i
        inverse, most = load_f32(unit + symmetric.KEPT * VECTOR_BYTES), load_f32(unit + symmetric.MOST * VECTOR_BYTES)
        for j in range(16):
            store_u8(sixes + j, np.uint8(_multiple(inverse, most, load_f32(found + 64 * i + 4 * j))))
        target_block = target + BLOCK_BYTES * i
        store_f16(target_block + D, load_f32(unit + symmetric.SCALE * VECTOR_BYTES))
        _store_block(source + SUPER_BLOCK_BYTES * i, target_block, sixes, found + 64 * i, FIELD)


encode = by_blocks(_encode_together, Q3_K.block_values, BLOCK_BYTES, LANES)
