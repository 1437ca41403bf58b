"""Q6_K: a lane for each sub-block of one or two super-blocks; the scales found become int8 multiples of one number."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q6_k import CENTRE, Q6_K
from ggpy.blocks.search import NOTHING
from ggpy.kernels.encode import symmetric
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import nearest_scalar
from ggpy.kernels.encode.symmetric import symmetric_quants, symmetric_search
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f16, load_f32, load_u8x32, store_f16, store_i8, store_u8x32
from ggpy.simd.vectors import constant, u8x32

BLOCK_BYTES = Q6_K.block_bytes
SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 64  # of float32 values
QH, SCALES, D = 128, 192, 208  # where the fields after ql begin
ZERO, ONE = np.float32(0), np.float32(1)

TOGETHER = LANES // 16  # super-blocks
SUB_VECTORS = 16 * VECTOR_BYTES  # value 0..15 of every sub-block

_low_bits, _two, _four, _six = constant(u8x32, 15), constant(u8x32, 2), constant(u8x32, 4), constant(u8x32, 6)
_stored_quants, _kept_quants = symmetric_quants(16, CENTRE)
find = symmetric_search(16, CENTRE)

_lanes = scratch(3 * SUB_VECTORS)  # values, squares, cubes
_found = scratch(symmetric.FIELDS * VECTOR_BYTES)
_quants = scratch(256)


@inline
def first_peak_of(address, count):
    """The value of the largest magnitude of `count` float32, with its sign."""
    peak = ZERO
    for j in range(0, 4 * count, 4):
        value = load_f32(address + j)
        peak = value if abs(value) > abs(peak) else peak
    return peak


@inline
def _store_quants(target, quants):
    for half in range(2):
        q, ql = quants + 128 * half, target + 64 * half
        q1, q2, q3, q4 = load_u8x32(q), load_u8x32(q + 32), load_u8x32(q + 64), load_u8x32(q + 96)
        store_u8x32(ql, (q1 & _low_bits()) | q3 << _four())
        store_u8x32(ql + 32, (q2 & _low_bits()) | q4 << _four())
        high = (q1 >> _four()) | (q2 >> _four()) << _two() | (q3 >> _four()) << _four() | (q4 >> _four()) << _six()
        store_u8x32(target + QH + 32 * half, high)


@inline
def store_block(source, target, found, stride):
    """One super-block; `found` points at the first of its sixteen lanes."""
    quants, peak = _quants(), first_peak_of(found, 16)
    if abs(peak) < NOTHING:
        for i in range(BLOCK_BYTES):
            store_i8(target + i, np.int8(0))
        return
    inverse = np.float32(-128) / peak
    store_f16(target + D, ONE / inverse)
    d = load_f16(target + D)
    for j in range(16):
        scale = min(nearest_scalar(inverse * load_f32(found + 4 * j)), 127)
        store_i8(target + SCALES + j, np.int8(scale))
        stored = d * np.float32(scale)
        if stored == 0:
            _kept_quants(source + SUB_BLOCK_BYTES * j, quants + 16 * j, found + 4 * j, stride)
        else:
            _stored_quants(source + SUB_BLOCK_BYTES * j, quants + 16 * j, stored)
    _store_quants(target, quants)


@inline
def encode_together(source, target, count):
    lanes, found = _lanes(), _found()
    to_lanes(source, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        x = load_wide(lanes + i)
        square = x * x
        store_wide(lanes + SUB_VECTORS + i, square)
        store_wide(lanes + 2 * SUB_VECTORS + i, square * x)
    find(lanes, found, VECTOR_BYTES)
    for i in range(count):
        store_block(source + SUPER_BLOCK_BYTES * i, target + BLOCK_BYTES * i, found + 64 * i, VECTOR_BYTES)


encode = encoder(encode_together, Q6_K.block_values, BLOCK_BYTES, TOGETHER)
