"""Q3_K: a lane for each sub-block of one or two super-blocks; quants around zero are moved one by one while that helps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks.q3_k import CENTRE, Q3_K, SCALE_CENTRE
from ggpy.blocks.search import NOTHING
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.planes import store_third_bits, store_two_bits
from ggpy.kernels.encode.q6_k import first_peak_of
from ggpy.kernels.encode.refine import refining
from ggpy.kernels.encode.rounding import nearest_scalar
from ggpy.kernels.encode.symmetric import symmetric_quants
from ggpy.kernels.encode.wide import (
    LANES,
    VECTOR_BYTES,
    load_wide,
    rounding,
    signed_rounding,
    splat_wide,
    store_wide,
    to_lanes,
    wide_constant,
)
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import scratch, where_less
from ggpy.simd.memory import load_f16, load_f32, load_u8, store_f16, store_u8

BLOCK_BYTES = Q3_K.block_bytes
SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 64  # of float32 values
QS, SCALES, D = 32, 96, 108  # where the fields after the mask begin
ZERO, ONE = np.float32(0), np.float32(1)

TOGETHER = LANES // 16  # super-blocks
SUB_VECTORS = 16 * VECTOR_BYTES  # value 0..15 of every sub-block
QUANTS = 3 * SUB_VECTORS

_zero, _nothing, _lowest = wide_constant(0.0), wide_constant(float(NOTHING)), wide_constant(-CENTRE)
_first_round, _round = signed_rounding(-CENTRE, CENTRE - 1), rounding(-CENTRE, CENTRE - 1)

_lanes = scratch(4 * SUB_VECTORS)  # values, squares, cubes, quants
_found = scratch(VECTOR_BYTES)  # scales
_sixes = scratch(16)
_quants = scratch(256)


@inline
def _as_it_is(quants):
    return quants


_refine = refining(16, _round, _as_it_is, by_rest=False)


@inline
def _find(lanes, found):
    """Scale and quants, -4..3, of the sub-blocks in `lanes`. What is below NOTHING computes nonsense that is put right at the end."""
    peak, most = _zero(), _zero()
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        x = load_wide(lanes + i)
        peak, most = where_less(most, absolute(x), x, peak), where_less(most, absolute(x), absolute(x), most)

    inverse, sum_xl, sum_l2 = splat_wide(np.float32(-CENTRE)) / peak, _zero(), _zero()
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        x = load_wide(lanes + i)
        w, wx, l = x * x, (x * x) * x, _first_round(inverse * x)
        store_wide(lanes + SUB_VECTORS + i, w)
        store_wide(lanes + 2 * SUB_VECTORS + i, wx)
        store_wide(lanes + QUANTS + i, l)
        sum_xl, sum_l2 = sum_xl + wx * l, sum_l2 + (w * l) * l

    sum_xl, sum_l2 = _refine(lanes, sum_xl, sum_l2)
    scale = where_less(_zero(), sum_l2, sum_xl / sum_l2, _zero())
    store_wide(found, where_less(most, _nothing(), _zero(), scale))
    for i in range(QUANTS, QUANTS + SUB_VECTORS, VECTOR_BYTES):
        store_wide(lanes + i, where_less(most, _nothing(), _lowest(), load_wide(lanes + i)))


@inline
def _store_six_bits(target, sixes):
    """Twelve bytes of sixteen numbers 0..63: the low four bits of 0..7 and above them of 8..15, then the high two bits of j, j + 4, …"""
    for j in range(8):
        store_u8(target + j, np.uint8((load_u8(sixes + j) & 15) | (load_u8(sixes + 8 + j) & 15) << 4))
    for j in range(4):
        low = load_u8(sixes + j) >> 4 | load_u8(sixes + 4 + j) >> 4 << 2
        store_u8(target + 8 + j, np.uint8(low | load_u8(sixes + 8 + j) >> 4 << 4 | load_u8(sixes + 12 + j) >> 4 << 6))


def block_storing(kept_quants: Callable) -> Callable:
    """store_block(source, target, sixes, at, stride): the scales 0..63, a byte each, and the quants of a block that has its d.

    kept_quants(source, quants, at, stride) writes sixteen quants as the search kept them; `at` is for the first sub-block.
    """
    stored_quants, _ = symmetric_quants(16, CENTRE)

    @inline
    def store_block(source, target, sixes, at, stride):
        quants, d = _quants(), load_f16(target + D)
        _store_six_bits(target + SCALES, sixes)
        for j in range(16):
            scale = d * np.float32(np.int64(load_u8(sixes + j)) - SCALE_CENTRE)
            if scale == 0:
                kept_quants(source + SUB_BLOCK_BYTES * j, quants + 16 * j, at + 4 * j, stride)
            else:
                stored_quants(source + SUB_BLOCK_BYTES * j, quants + 16 * j, scale)
        store_third_bits(target, quants)
        store_two_bits(target + QS, quants)

    return store_block


@inline
def _kept_quants(source, quants, at, stride):
    for i in range(16):
        store_u8(quants + i, np.uint8(load_f32(at + stride * i) + np.float32(CENTRE)))


_store_block = block_storing(_kept_quants)


@inline
def _scale_bits(value):
    """`value`, rounded to an int8 as C does, as 0..63."""
    return min(max(np.int64(np.int8(nearest_scalar(value))), -SCALE_CENTRE), SCALE_CENTRE - 1) + SCALE_CENTRE


@inline
def _encode_together(source, target, count):
    lanes, found, sixes = _lanes(), _found(), _sixes()
    to_lanes(source, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
    _find(lanes, found)
    for i in range(count):
        peak = first_peak_of(found + 64 * i, 16)
        inverse = np.float32(-SCALE_CENTRE) / peak
        for j in range(16):
            store_u8(sixes + j, np.uint8(_scale_bits(inverse * load_f32(found + 64 * i + 4 * j)) if peak != 0 else 0))
        block = target + BLOCK_BYTES * i
        store_f16(block + D, ONE / inverse if peak != 0 else ZERO)
        _store_block(source + SUPER_BLOCK_BYTES * i, block, sixes, lanes + QUANTS + 64 * i, VECTOR_BYTES)


encode = encoder(_encode_together, Q3_K.block_values, BLOCK_BYTES, TOGETHER)
