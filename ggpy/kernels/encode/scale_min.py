"""Super-blocks of Q4_K and Q5_K: the search of `ggpy.blocks.scale_min`, sixteen sub-blocks (two super-blocks) side by side in lanes.

Each lane does what the reference does for its sub-block, one value after the other, so every sum has ggml's order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.blocks.scale_min import Search
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import ONE, nearest_int, nearest_scalar, rounded_quants, splat_f32, splat_i32, to_u8
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import absolute, square_root
from ggpy.simd.lanes import larger, scratch, smaller, transpose, where_less
from ggpy.simd.memory import load_f16, load_f32, load_f32x16, store_f16, store_f32x16, store_u8, store_u8x16
from ggpy.simd.vectors import constant, f32x16, i32x16

SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 128  # of float32 values
SIX_BITS = np.float32(63)

_zero, _one, _infinite = constant(f32x16, 0.0), constant(f32x16, 1.0), constant(f32x16, np.inf)
_sub_values = constant(f32x16, 32.0)
_no_quant = constant(i32x16, 0)

_lanes = scratch(3 * 2048)  # values, weights, trial quants: 32 vectors of float32 each
_found = scratch(4 * 64)  # scale, negated min, and what the kept quants were rounded with: inverse scale, min
_quants = scratch(256)


@inline
def _error(lanes, scale, low, quants):
    """Weighted squared error of scale * quants + low, per lane; `quants` is the address of 32 vectors."""
    total = _zero()
    for i in range(0, 2048, 64):
        off = (scale * load_f32x16(quants + i) + low) - load_f32x16(lanes + i)
        total = total + load_f32x16(lanes + 2048 + i) * (off * off)
    return total


def super_block_encoder(block_format: BlockFormat, search: Search, store_quants: Callable) -> Kernel:
    """The kernel that encodes super-blocks; `store_quants(target, quants)` packs 256 quants, one byte each, into a block."""
    n_trials, largest = search.steps, search.largest
    first, step, most = np.float32(search.first), np.float32(search.step), np.float32(search.largest)

    @inline
    def round_lanes(lanes, trial, inverse, low):
        for i in range(0, 2048, 64):
            store_f32x16(trial + i, rounded_quants(inverse * (load_f32x16(lanes + i) - low), largest))

    @inline
    def find(lanes, found):
        """For the sixteen sub-blocks in `lanes`, write `found`."""
        weights, trial = lanes + 2048, lanes + 4096
        squares, low, high = _zero(), load_f32x16(lanes), load_f32x16(lanes)
        for i in range(0, 2048, 64):
            x = load_f32x16(lanes + i)
            squares = squares + x * x
            low, high = where_less(x, low, x, low), where_less(high, x, x, high)
        low = where_less(_zero(), low, _zero(), low)
        rms = square_root(squares / _sub_values())

        sum_w, sum_x = _zero(), _zero()
        for i in range(0, 2048, 64):
            x = load_f32x16(lanes + i)
            w = rms + absolute(x)
            store_f32x16(weights + i, w)
            sum_w, sum_x = sum_w + w, sum_x + w * x

        inverse, anchor = splat_f32(most) / (high - low), low
        scale = _one() / inverse
        round_lanes(lanes, trial, inverse, low)
        least = _error(lanes, scale, low, trial)

        for k in range(n_trials):
            spread = (first + step * np.float32(k)) + most
            trial_inverse = splat_f32(spread) / (high - low)
            sum_l, sum_l2, sum_xl = _zero(), _zero(), _zero()
            for i in range(0, 2048, 64):
                x = load_f32x16(lanes + i)
                l = rounded_quants(trial_inverse * (x - low), largest)
                store_f32x16(trial + i, l)
                wl = load_f32x16(weights + i) * l
                sum_l, sum_l2, sum_xl = sum_l + wl, sum_l2 + wl * l, sum_xl + wl * x
            determinant = sum_w * sum_l2 - sum_l * sum_l
            trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
            trial_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
            trial_scale = where_less(_zero(), trial_low, sum_xl / sum_l2, trial_scale)
            trial_low = where_less(_zero(), trial_low, _zero(), trial_low)
            error = where_less(_zero(), determinant, _error(lanes, trial_scale, trial_low, trial), _infinite())
            inverse = where_less(error, least, trial_inverse, inverse)
            anchor = where_less(error, least, low, anchor)
            scale = where_less(error, least, trial_scale, scale)
            low = where_less(error, least, trial_low, low)
            least = where_less(error, least, error, least)

        store_f32x16(found, scale)
        store_f32x16(found + 64, _zero() - low)
        store_f32x16(found + 128, inverse)
        store_f32x16(found + 192, anchor)

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
        """The super-block whose eight sub-blocks are the lanes from `found` on."""
        quants = _quants()
        unit_scale, unit_min = _unit(found), _unit(found + 64)
        store_f16(target, unit_scale / SIX_BITS)
        store_f16(target + 2, unit_min / SIX_BITS)
        d, dmin = load_f16(target), load_f16(target + 2)
        for j in range(4):
            scale, high_scale = _six_bits(found, j, unit_scale), _six_bits(found, j + 4, unit_scale)
            least, high_least = _six_bits(found + 64, j, unit_min), _six_bits(found + 64, j + 4, unit_min)
            store_u8(target + 4 + j, scale | (high_scale >> 4) << 6)
            ...
        for j in range(8):
            ...
        store_quants(target, quants)

    return encoder(...)
