"""Q2_K: a lane for each sub-block of one or two super-blocks in the search for scale and min, of which each gets four bits."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q2_k import FOUR_BITS, Q2_K, SEARCH
from ggpy.kernels.encode import affine
from ggpy.kernels.encode.affine import affine_quants, affine_search
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.planes import store_two_bits
from ggpy.kernels.encode.rounding import nearest_scalar
from ggpy.kernels.encode.scale_min import largest_of, smallest_of
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f16, load_f32, load_u8, store_f16, store_u8

BLOCK_BYTES = Q2_K.block_bytes
SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 64  # of float32 values
QS, D, DMIN = 16, 80, 82  # where the fields after the scales begin
ZERO, LARGEST = np.float32(0), np.float32(FOUR_BITS)

TOGETHER = LANES // 16  # super-blocks
SUB_VECTORS = 16 * VECTOR_BYTES  # value 0..15 of every sub-block

_stored_quants, _kept_quants = affine_quants(16, SEARCH.largest)
_find = affine_search(16, SEARCH)

_lanes = scratch(3 * SUB_VECTORS)  # values, magnitudes, trial quants
_found = scratch(affine.FIELDS * VECTOR_BYTES)
_quants = scratch(256)


@inline
def store_quants(source, target, found, stride):
    """The quants of a block that has its scales, d and dmin; `found` points at the first of its sixteen lanes."""
    quants, d, dmin = _quants(), load_f16(target + D), load_f16(target + DMIN)
    for j in range(16):
        both = load_u8(target + j)
        scale, minimum = d * np.float32(both & 15), dmin * np.float32(both >> 4)
        if scale == 0:
            _kept_quants(source + SUB_BLOCK_BYTES * j, quants + 16 * j, found + 4 * j, stride)
        else:
            _stored_quants(source + SUB_BLOCK_BYTES * j, quants + 16 * j, scale, minimum)
    store_two_bits(target + QS, quants)


@inline
def _store_block(source, target, found):
    """One super-block; `found` points at the first of its sixteen lanes. What is below zero wraps at eight bits, as in ggml."""
    lows = found + affine.LOW * VECTOR_BYTES
    largest_scale, largest_min = largest_of(found, 16), ZERO - smallest_of(lows, 16)
    store_f16(target + D, largest_scale / LARGEST)
    store_f16(target + DMIN, largest_min / LARGEST)
    inverse = LARGEST / largest_scale if largest_scale > 0 else ZERO
    inverse_min = LARGEST / largest_min if largest_min > 0 else ZERO
    for j in range(16):
        scale = nearest_scalar(inverse * load_f32(found + 4 * j))
        minimum = nearest_scalar(inverse_min * (ZERO - load_f32(lows + 4 * j)))
        store_u8(target + j, np.uint8((scale | minimum << 4) & 0xFF))
    store_quants(source, target, found, VECTOR_BYTES)


@inline
def _encode_together(source, target, count):
    lanes, found = _lanes(), _found()
    to_lanes(source, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        store_wide(lanes + SUB_VECTORS + i, absolute(load_wide(lanes + i)))
    _find(lanes, found, VECTOR_BYTES)
    for i in range(count):
        _store_block(source + SUPER_BLOCK_BYTES * i, target + BLOCK_BYTES * i, found + 64 * i)


encode = encoder(_encode_together, Q2_K.block_values, BLOCK_BYTES, TOGETHER)
