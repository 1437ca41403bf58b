"""Q6_K: the search of `ggpy.blocks.q6_k`, the sub-blocks of one or two super-blocks side by side in lanes."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q6_k import CENTRE, NOTHING, Q6_K
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import nearest_int, nearest_scalar, splat_f32, splat_i32, to_u8
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, signed_rounding, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute
from ggpy.simd.lanes import larger, scratch, smaller, transpose, where_equal, where_less
from ggpy.simd.memory import load_f16, load_f32, load_f32x16, load_u8x32, store_f16, store_i8, store_u8x16, store_u8x32
from ggpy.simd.vectors import constant, i32x16, u8x32

BLOCK_BYTES = Q6_K.block_bytes
SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 64  # of float32 values
QH, SCALES, D = 128, 192, 208  # where the fields after ql begin
LEAST, LARGEST = -CENTRE, CENTRE - 1
ZERO, ONE, TENTH = np.float32(0), np.float32(1), np.float32(0.1)

TOGETHER = LANES // 16  # super-blocks
SUB_VECTORS = 16 * VECTOR_BYTES  # value 0..15 of every sub-block

_zero, _never = wide_constant(0.0), wide_constant(-np.inf)
_nothing, _centre = wide_constant(float(NOTHING)), constant(i32x16, CENTRE)
_low_bits, _two, _four = constant(u8x32, 15), constant(u8x32, 2), constant(u8x32, 4)
_six = constant(u8x32, 6)
_rounded = signed_rounding(LEAST, LARGEST)

_lanes = scratch(3 * SUB_VECTORS)  # values, squares, cubes
_found = scratch(3 * VECTOR_BYTES)  # scale, inverse scale of the kept quants, value of the largest magnitude
_quants = scratch(256)


@inline
def _sums(lanes, inverse):
    """Weighted sums of x * quant and quant * quant per lane, the weights being squares."""
    sum_xl, sum_l2 = _zero(), _zero()
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        l = _rounded(inverse * load_wide(lanes + i))
        sum_xl = sum_xl + load_wide(lanes + 2 * SUB_VECTORS + i) * l
        sum_l2 = sum_l2 + (load_wide(lanes + SUB_VECTORS + i) * l) * l
    return sum_xl, sum_l2


@inline
def _find(lanes, found):
    """For the sub-blocks in `lanes`, write `found`. What is below NOTHING computes nonsense that is put right at the end."""
    peak, most = _zero(), _zero()
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        x = load_wide(lanes + i)
        square = x * x
        store_wide(lanes + SUB_VECTORS + i, square)
        store_wide(lanes + 2 * SUB_VECTORS + i, square * x)
        peak, most = where_less(most, absolute(x), x, peak), where_less(most, absolute(x), absolute(x), most)

    kept = splat_wide(np.float32(-CENTRE)) / peak
    sum_xl, sum_l2 = _sums(lanes, kept)
    scale = where_equal(sum_l2, _zero(), _zero(), sum_xl / sum_l2)
    best = scale * sum_xl
    for k in range(-9, 10):
        if k != 0:
            inverse = splat_wide(-(np.float32(CENTRE) + TENTH * np.float32(k))) / peak
            sum_xl, sum_l2 = _sums(lanes, inverse)
            explained, bar = where_less(_zero(), sum_l2, sum_xl * sum_xl, _never()), best * sum_l2
            scale = where_less(bar, explained, sum_xl / sum_l2, scale)
            kept = where_less(bar, explained, inverse, kept)
            best = where_less(bar, explained, scale * sum_xl, best)

    store_wide(found, where_less(most, _nothing(), _zero(), scale))
    store_wide(found + VECTOR_BYTES, kept)
    store_wide(found + 2 * VECTOR_BYTES, most)


@inline
def _round_sub_block(source, quants, stored, kept, most):
    """Sixteen quants of the sub-block with its stored scale, or as the search rounded where that is 0."""
    x = load_f32x16(source)
    if stored != 0:
        q = nearest_int(x / splat_f32(stored))
    elif most < NOTHING:
        q = splat_i32(LEAST)
    else:
        q = nearest_int(splat_f32(kept) * x)
    store_u8x16(quants, to_u8(larger(smaller(q, splat_i32(LARGEST)), splat_i32(LEAST)) + _centre()))


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
def _store_block(source, target, found):
    """One super-block; `found` points at the first of its sixteen lanes."""
    quants, peak = _quants(), ZERO
    for j in range(0, 64, 4):
        scale = load_f32(found + j)
        peak = scale if abs(scale) > abs(peak) else peak
    if abs(peak) < NOTHING:
        for i in range(BLOCK_BYTES):
            store_i8(target + i, np.int8(0))
        return
    inverse = np.float32(-128) / peak
    store_f16(target + D, ONE / inverse)
    d = load_f16(target + D)
    for j in range(16):
        at = found + 4 * j
        scale = min(nearest_scalar(inverse * load_f32(at)), 127)
        store_i8(target + SCALES + j, np.int8(scale))
        kept, most = load_f32(at + VECTOR_BYTES), load_f32(at + 2 * VECTOR_BYTES)
        _round_sub_block(source + SUB_BLOCK_BYTES * j, quants + 16 * j, d * np.float32(scale), kept, most)
    _store_quants(target, quants)


@inline
def encode_together(source, target, count):
    lanes, found = _lanes(), _found()
    for i in range(TOGETHER):  # where there are fewer super-blocks, the last fills the lanes
        block = source + SUPER_BLOCK_BYTES * min(i, count - 1)
        transpose(block, block + 8 * SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes + 64 * i, VECTOR_BYTES)
    _find(lanes, found)
    for i in range(count):
        _store_block(source + SUPER_BLOCK_BYTES * i, target + BLOCK_BYTES * i, found + 64 * i)


encode = encoder(encode_together, Q6_K.block_values, BLOCK_BYTES, TOGETHER)
