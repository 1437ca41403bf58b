"""Super-blocks of Q4_K and Q5_K, without importance: the sub-blocks of several super-blocks side by side in lanes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.blocks.search import Search
from ggpy.kernels.encode import affine
from ggpy.kernels.encode.affine import affine_quants, affine_search
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import nearest_scalar
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes, wide_constant
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import absolute, square_root
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f16, load_f32, load_u8, store_f16, store_u8

SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 128  # of float32 values
TOGETHER = LANES // 8  # super-blocks
SUB_VECTORS = 32 * VECTOR_BYTES  # value 0..31 of every sub-block
ZERO, SIX_BITS = np.float32(0), np.float32(63)

_zero, _sub_values = wide_constant(0.0), wide_constant(32.0)

_lanes = scratch(3 * SUB_VECTORS)  # values, weights, trial quants
_found = scratch(affine.FIELDS * VECTOR_BYTES)
_sixes = scratch(16)  # scales, mins
_quants = scratch(256)


@inline
def largest_of(address, count):
    """The largest of `count` float32, at least 0."""
    most = ZERO
    for j in range(0, 4 * count, 4):
        value = load_f32(address + j)
        most = value if value > most else most
    return most


@inline
def smallest_of(address, count):
    """The smallest of `count` float32, at most 0."""
    least = ZERO
    for j in range(0, 4 * count, 4):
        value = load_f32(address + j)
        least = value if value < least else least
    return least


@inline
def _six_bits(value, largest_value):
    """The multiple of largest_value / 63 that stands for `value`, 0..63; a negative one wraps at eight bits, as in ggml."""
    inverse = SIX_BITS / largest_value if largest_value > 0 else ZERO
    return min(nearest_scalar(inverse * value) & 0xFF, 63)


@inline
def store_six_bits(target, sixes):
    """Twelve bytes of eight scales and eight mins, given one to a byte; the layout of `ggpy.blocks.scale_min.unpack_scale_min`."""
    for j in range(4):
        scale, high_scale = load_u8(sixes + j), load_u8(sixes + 4 + j)
        minimum, high_minimum = load_u8(sixes + 8 + j), load_u8(sixes + 12 + j)
        store_u8(target + j, np.uint8(scale | (high_scale >> 4) << 6))
        store_u8(target + 4 + j, np.uint8(minimum | (high_minimum >> 4) << 6))
        store_u8(target + 8 + j, np.uint8((high_scale & 15) | (high_minimum & 15) << 4))


def quant_rounding(largest: int) -> Callable:
    """round_quants(source, target, sixes, found, stride, quants): 256 quants of a super-block, a byte each, given the d and dmin that its
    block at `target` has, multiples of them a byte each, and `found` pointing at the first of its eight lanes."""
    stored_quants, kept_quants = affine_quants(32, largest)

    @inline
    def round_quants(source, target, sixes, found, stride, quants):
        d, dmin = load_f16(target), load_f16(target + 2)
        for j in range(8):
            values, sub_quants = source + SUB_BLOCK_BYTES * j, quants + 32 * j
            scale, minimum = d * np.float32(load_u8(sixes + j)), dmin * np.float32(load_u8(sixes + 8 + j))
            if scale == 0:
                kept_quants(values, sub_quants, found + 4 * j, stride)
            else:
                stored_quants(values, sub_quants, scale, minimum)

    return round_quants


@inline
def _store_weights(lanes):
    """The weights of values without importance: |x| and the root of the sub-block's mean square."""
    squares = _zero()
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        x = load_wide(lanes + i)
        squares = squares + x * x
    rms = square_root(squares / _sub_values())
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        store_wide(lanes + SUB_VECTORS + i, rms + absolute(load_wide(lanes + i)))


def super_block_encoder(block_format: BlockFormat, search: Search, store_quants: Callable) -> Kernel:
    """The kernel that encodes super-blocks; `store_quants(target, quants)` packs 256 quants, one byte each, into a block."""
    find, round_quants, block_bytes = affine_search(32, search), quant_rounding(search.largest), block_format.block_bytes

    @inline
    def store_block(source, target, found):
        """One super-block; `found` points at the first of its eight lanes."""
        sixes, quants, lows = _sixes(), _quants(), found + affine.LOW * VECTOR_BYTES
        largest_scale, largest_min = largest_of(found, 8), ZERO - smallest_of(lows, 8)
        store_f16(target, largest_scale / SIX_BITS)
        store_f16(target + 2, largest_min / SIX_BITS)
        for j in range(8):
            store_u8(sixes + j, np.uint8(_six_bits(load_f32(found + 4 * j), largest_scale)))
            store_u8(sixes + 8 + j, np.uint8(_six_bits(ZERO - load_f32(lows + 4 * j), largest_min)))
        store_six_bits(target + 4, sixes)
        round_quants(source, target, sixes, found, VECTOR_BYTES, quants)
        store_quants(target, quants)

    @inline
    def encode_together(source, target, count):
        lanes, found = _lanes(), _found()
        to_lanes(source, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
        _store_weights(lanes)
        find(lanes, found, VECTOR_BYTES)
        for i in range(count):
            store_block(source + SUPER_BLOCK_BYTES * i, target + block_bytes * i, found + 32 * i)

    return encoder(encode_together, block_format.block_values, block_bytes, together=TOGETHER)
