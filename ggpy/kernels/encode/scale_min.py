"""Super-blocks of Q4_K and Q5_K: the search of `ggpy.blocks.scale_min`, the sub-blocks of several super-blocks side by side in lanes.

Each lane does what the reference does for its sub-block, one value after the other, so every sum has ggml's order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.blocks.scale_min import Search
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import nearest_int, nearest_scalar, splat_f32, splat_i32, to_u8
from ggpy.kernels.encode.wide import (
    LANES,
    VECTOR_BYTES,
    all_below,
    load_wide,
    rounding,
    small_rounding,
    splat_wide,
    store_wide,
    wide_constant,
)
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import absolute, square_root
from ggpy.simd.lanes import lanes_less, larger, scratch, smaller, transpose, where_less
from ggpy.simd.memory import load_f16, load_f32, load_f32x16, load_u8, store_f16, store_u8, store_u8x16
from ggpy.simd.vectors import constant, i32x16

SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 128  # of float32 values
TOGETHER = LANES // 8  # super-blocks
SUB_VECTORS = 32 * VECTOR_BYTES  # value 0..31 of every sub-block
ZERO, SIX_BITS = np.float32(0), np.float32(63)

_zero, _one, _infinite = wide_constant(0.0), wide_constant(1.0), wide_constant(np.inf)
_sub_values = wide_constant(32.0)
_are_small = all_below(2.0**21)
_no_quant = constant(i32x16, 0)

_lanes = scratch(3 * SUB_VECTORS)  # values, weights, trial quants
_found = scratch(4 * VECTOR_BYTES)  # scale, negated min, and what the kept quants were rounded with: inverse scale, min
_sixes = scratch(16)  # scales, mins
_quants = scratch(256)


@inline
def _error(lanes, scale, low, quants):
    """Weighted squared error of scale * quants + low, per lane; `quants` is the address of 32 vectors."""
    total = _zero()
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        off = (scale * load_wide(quants + i) + low) - load_wide(lanes + i)
        total = total + load_wide(lanes + SUB_VECTORS + i) * (off * off)
    return total


@inline
def _largest_of_eight(address):
    """The largest of eight float32, at least 0."""
    most = ZERO
    for j in range(0, 32, 4):
        value = load_f32(address + j)
        most = value if value > most else most
    return most


@inline
def _six_bits(value, largest_value):
    """The multiple of largest_value / 63 that stands for `value`, 0..63; a negative one wraps at eight bits, as in ggml."""
    inverse = SIX_BITS / largest_value if largest_value > 0 else ZERO
    return min(nearest_scalar(inverse * value) & 0xFF, 63)


@inline
def _store_six_bits(target, sixes):
    """Twelve bytes of eight scales and eight mins, given one to a byte; the layout of `ggpy.blocks.scale_min.unpack_scale_min`."""
    for j in range(4):
        scale, high_scale = load_u8(sixes + j), load_u8(sixes + 4 + j)
        minimum, high_minimum = load_u8(sixes + 8 + j), load_u8(sixes + 12 + j)
        store_u8(target + j, np.uint8(scale | (high_scale >> 4) << 6))
        store_u8(target + 4 + j, np.uint8(minimum | (high_minimum >> 4) << 6))
        store_u8(target + 8 + j, np.uint8((high_scale & 15) | (high_minimum & 15) << 4))


def super_block_encoder(block_format: BlockFormat, search: Search, store_quants: Callable) -> Kernel:
    """The kernel that encodes super-blocks; `store_quants(target, quants)` packs 256 quants, one byte each, into a block."""
    n_trials, largest = search.steps, search.largest
    block_bytes = block_format.block_bytes
    first, step, most = np.float32(search.first), np.float32(search.step), np.float32(search.largest)

    def summing(rounded: Callable) -> Callable:
        @inline
        def sums(lanes, inverse, low):
            """Writes the trial quants; weighted sums of quant, quant * quant, quant * x per lane."""
            sum_l, sum_l2, sum_xl = _zero(), _zero(), _zero()
            for i in range(0, SUB_VECTORS, VECTOR_BYTES):
                x = load_wide(lanes + i)
                l = rounded(inverse * (x - low))
                store_wide(lanes + 2 * SUB_VECTORS + i, l)
                wl = load_wide(lanes + SUB_VECTORS + i) * l
                sum_l, sum_l2, sum_xl = sum_l + wl, sum_l2 + wl * l, sum_xl + wl * x
            return sum_l, sum_l2, sum_xl

        return sums

    sums_of_all, sums_of_small = summing(rounding(largest)), summing(small_rounding(largest))

    @inline
    def trial_sums(lanes, inverse, low, least, high):
        """`sums` of sub-blocks with the smallest value `least` and the largest `high`, between whose scaled values all others lie."""
        if _are_small(inverse * (least - low)) and _are_small(inverse * (high - low)):
            return sums_of_small(lanes, inverse, low)
        return sums_of_all(lanes, inverse, low)

    @inline
    def find(lanes, found):
        """For the sub-blocks in `lanes`, write `found`."""
        squares, least, high = _zero(), load_wide(lanes), load_wide(lanes)
        for i in range(0, SUB_VECTORS, VECTOR_BYTES):
            x = load_wide(lanes + i)
            squares = squares + x * x
            least, high = where_less(x, least, x, least), where_less(high, x, x, high)
        low = where_less(_zero(), least, _zero(), least)
        rms = square_root(squares / _sub_values())

        sum_w, sum_x = _zero(), _zero()
        for i in range(0, SUB_VECTORS, VECTOR_BYTES):
            x = load_wide(lanes + i)
            w = rms + absolute(x)
            store_wide(lanes + SUB_VECTORS + i, w)
            sum_w, sum_x = sum_w + w, sum_x + w * x

        inverse, anchor = splat_wide(most) / (high - low), low
        scale = _one() / inverse
        trial_sums(lanes, inverse, low, least, high)
        trial = lanes + 2 * SUB_VECTORS
        least_error = _error(lanes, scale, low, trial)

        for k in range(n_trials):
            spread = (first + step * np.float32(k)) + most
            trial_inverse = splat_wide(spread) / (high - low)
            sum_l, sum_l2, sum_xl = trial_sums(lanes, trial_inverse, low, least, high)
            determinant = sum_w * sum_l2 - sum_l * sum_l
            trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
            trial_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
            if lanes_less(_zero(), trial_low) != 0:
                trial_scale = where_less(_zero(), trial_low, sum_xl / sum_l2, trial_scale)
                trial_low = where_less(_zero(), trial_low, _zero(), trial_low)
            error = where_less(_zero(), determinant, _error(lanes, trial_scale, trial_low, trial), _infinite())
            inverse = where_less(error, least_error, trial_inverse, inverse)
            anchor = where_less(error, least_error, low, anchor)
            scale = where_less(error, least_error, trial_scale, scale)
            low = where_less(error, least_error, trial_low, low)
            least_error = where_less(error, least_error, error, least_error)

        store_wide(found, scale)
        store_wide(found + VECTOR_BYTES, _zero() - low)
        store_wide(found + 2 * VECTOR_BYTES, inverse)
        store_wide(found + 3 * VECTOR_BYTES, anchor)

    @inline
    def round_sub_block(source, quants, d, dm, inverse, anchor):
        """32 quants of the sub-block with the stored scale and min, or as the search rounded where the stored scale is 0."""
        for i in range(0, 32, 16):
            x = load_f32x16(source + 4 * i)
            if d == 0:
                q = nearest_int(splat_f32(inverse) * (x - splat_f32(anchor)))
            else:
                q = nearest_int((x + splat_f32(dm)) / splat_f32(d))
            store_u8x16(quants + i, to_u8(larger(smaller(q, splat_i32(largest)), _no_quant())))

    @inline
    def store_block(source, target, found):
        """One super-block; `found` points at the first of its eight lanes."""
        sixes, quants = _sixes(), _quants()
        largest_scale, largest_min = _largest_of_eight(found), _largest_of_eight(found + VECTOR_BYTES)
        store_f16(target, largest_scale / SIX_BITS)
        store_f16(target + 2, largest_min / SIX_BITS)
        d, dmin = load_f16(target), load_f16(target + 2)
        for j in range(8):
            at = found + 4 * j
            scale, minimum = _six_bits(load_f32(at), largest_scale), _six_bits(load_f32(at + VECTOR_BYTES), largest_min)
            store_u8(sixes + j, np.uint8(scale))
            store_u8(sixes + 8 + j, np.uint8(minimum))
            stored_scale, stored_min = d * np.float32(scale), dmin * np.float32(minimum)
            inverse, anchor = load_f32(at + 2 * VECTOR_BYTES), load_f32(at + 3 * VECTOR_BYTES)
            round_sub_block(source + SUB_BLOCK_BYTES * j, quants + 32 * j, stored_scale, stored_min, inverse, anchor)
        _store_six_bits(target + 4, sixes)
        store_quants(target, quants)

    @inline
    def encode_together(source, target, count):
        lanes, found = _lanes(), _found()
        for i in range(0, TOGETHER, 2):  # where there are fewer super-blocks, the last fills the lanes
            one, other = source + SUPER_BLOCK_BYTES * min(i, count - 1), source + SUPER_BLOCK_BYTES * min(i + 1, count - 1)
            transpose(one, other, SUB_BLOCK_BYTES, lanes + 32 * i, VECTOR_BYTES)
            transpose(one + 64, other + 64, SUB_BLOCK_BYTES, lanes + 16 * VECTOR_BYTES + 32 * i, VECTOR_BYTES)
        find(lanes, found)
        for i in range(count):
            store_block(source + SUPER_BLOCK_BYTES * i, target + block_bytes * i, found + 32 * i)

    return encoder(encode_together, block_format.block_values, block_bytes, together=TOGETHER)
