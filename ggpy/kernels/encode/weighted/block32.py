"""Blocks of 32 values of Q4_0, Q4_1, Q5_0 and Q5_1, whose weights take the mean square of a row: a lane for each of many blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.kernels.encode.weighted.chunks import by_rows
from ggpy.kernels.encode.weighted.weights import store_weights
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.lanes import lanes_less, scratch
from ggpy.simd.memory import load_f32, load_u8x16, load_u8x32, store_u8x16, store_u32
from ggpy.simd.vectors import constant, u8x16, u8x32

VALUE_BYTES = 128
SIZE = 32 * VECTOR_BYTES  # value 0..31 of every block
MOST_FIELDS = 4

_low_bits, _four, _fifteen = constant(u8x16, 15), constant(u8x16, 4), constant(u8x32, 15)

_lanes = scratch(3 * SIZE)  # values, weights, what the search keeps there
_weights = scratch(VALUE_BYTES * LANES)
_found = scratch(MOST_FIELDS * VECTOR_BYTES)
_quants = scratch(32)


@inline
def store_nibbles(target, quants):
    """Sixteen bytes of 32, as `ggpy.kernels.encode.nibbles` has them."""
    store_u8x16(target, (load_u8x16(quants) & _low_bits()) | load_u8x16(quants + 16) << _four())


@inline
def store_fifth_bits(target, quants):
    store_u32(target, np.uint32(lanes_less(_fifteen(), load_u8x32(quants))))


@inline
def _store_all_weights(source, count, block, about, target):
    """Weights of LANES blocks, of which those from `count` on may be anything."""
    importance, row_blocks, means, first = about
    row, column = (block - first) // row_blocks, (block - first) % row_blocks
    for i in range(LANES):
        store_weights(source + VALUE_BYTES * i, importance + VALUE_BYTES * column, load_f32(means + 4 * row), 32, target + VALUE_BYTES * i)
        if i + 1 < count:
            column += 1
            if column == row_blocks:
                row, column = row + 1, 0


def block32_encoder(block_format: BlockFormat, find: Callable, kept_quants: Callable, store_block: Callable) -> Kernel:
    """The kernel of a search as `ggpy.kernels.encode.affine` and `symmetric` have them; `store_block(target, quants, at, stride)` stores a
    block given its 32 quants, a byte each, and what was found for it."""
    block_bytes = block_format.block_bytes

    @inline
    def encode_together(source, target, count, block, about):
        lanes, weights, found, quants = _lanes(), _weights(), _found(), _quants()
        _store_all_weights(source, count, block, about, weights)
        to_lanes(source, VALUE_BYTES, VALUE_BYTES, lanes)
        to_lanes(weights, VALUE_BYTES, VALUE_BYTES, lanes + SIZE)
        for i in range(0, SIZE, VECTOR_BYTES):
            store_wide(lanes + 2 * SIZE + i, load_wide(lanes + i) * load_wide(lanes + SIZE + i))
        find(lanes, found, VECTOR_BYTES)
        for i in range(count):
            kept_quants(source + VALUE_BYTES * i, quants, found + 4 * i, VECTOR_BYTES)
            store_block(target + block_bytes * i, quants, found + 4 * i, VECTOR_BYTES)

    return by_rows(encode_together, block_format.block_values, block_bytes, LANES)
