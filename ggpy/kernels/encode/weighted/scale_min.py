"""Super-blocks of Q2_K, Q4_K and Q5_K with importance.

First a lane for each sub-block of a few super-blocks, which finds its scale and min; then, of as many super-blocks as there are lanes, a
lane for each, which finds the numbers whose multiples stand for those.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import BlockFormat
from ggpy.blocks.search import Search
from ggpy.kernels.encode import affine
from ggpy.kernels.encode.affine import affine_search
from ggpy.kernels.encode.chunks import FROM_F32
from ggpy.kernels.encode.scale_min import store_six_bits
from ggpy.kernels.encode.weighted.chunks import by_blocks
from ggpy.kernels.encode.weighted.positive import positive_search
from ggpy.kernels.encode.weighted.weights import SUPER_BLOCK_BYTES, mean_squares, store_super_block_weights, sum_of_weights
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes, wide_constant
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32, load_u8, store_u8

_zero = wide_constant(0.0)


@inline
def store_in_six_bits(target, multiples, limit):
    """Twelve bytes of eight multiples for scales and eight for mins; then `multiples` are what the bytes say.

    In Q4_K, ggml lets those of scales below zero, which wrap, spill into the high bits of others; in Q5_K it limits them to 63.
    """
    for j in range(16):
        store_u8(multiples + j, np.uint8(min(load_u8(multiples + j), limit)))
    store_six_bits(target, multiples)
    for j in range(4):
        scale, minimum, low = load_u8(target + j), load_u8(target + 4 + j), load_u8(target + 8 + j)
        store_u8(multiples + j, np.uint8(scale & 63))
        store_u8(multiples + 4 + j, np.uint8((low & 15) | scale >> 6 << 4))
        store_u8(multiples + 8 + j, np.uint8(minimum & 63))
        store_u8(multiples + 12 + j, np.uint8(low >> 4 | minimum >> 6 << 4))


def super_block_encoder(block_format: BlockFormat, search: Search, n_sub: int, share: float, most: int, store_block: Callable) -> Kernel:
    """The kernel that encodes super-blocks of `n_sub` sub-blocks.

    share: how much of the mean square counts. most: the largest multiple. store_block(source, target, d, dmin, multiples, found, stride):
    writes a block, given multiples for scales and then for mins, a byte each, and the first of the lanes of what was found for it.
    """
    n_values, block_bytes = 256 // n_sub, block_format.block_bytes
    sub_bytes, size, together = 4 * n_values, n_values * VECTOR_BYTES, LANES // n_sub
    field = 4 * n_sub * LANES + 64  # bytes of what is found for a group; rows of eight are read as if of sixteen
    part = np.float32(share)
    find, find_multiples = affine_search(n_values, search), positive_search(n_sub, most)
    sub_lanes, group_lanes = scratch(3 * size), scratch((3 * n_sub + 16) * VECTOR_BYTES)
    group_means, group_weights, group_found = (
        scratch(4 * LANES),
        scratch(SUPER_BLOCK_BYTES * together),
        scratch((affine.FIELDS + 1) * field),
    )
    group_units, group_multiples, block_multiples = scratch(2 * VECTOR_BYTES), scratch(2 * n_sub * VECTOR_BYTES), scratch(2 * n_sub)
    sums = affine.FIELDS * field  # where sums of weights begin

    @inline
    def find_sub_blocks(source, count, block, about, found):
        """Scales, mins and sums of weights of all sub-blocks of a group."""
        lanes, means, weights = sub_lanes(), group_means(), group_weights()
        mean_squares(source, FROM_F32, 256, LANES, part, np.float32(256), means)
        for first in range(0, count, together):
            at = found + 4 * n_sub * first
            place = (about[0], about[1], block)
            store_super_block_weights(source, count, first, place, means, weights, together)
            to_lanes(source + SUPER_BLOCK_BYTES * first, sub_bytes, sub_bytes, lanes)
            to_lanes(weights, sub_bytes, sub_bytes, lanes + size)
            store_wide(at + sums, sum_of_weights(lanes + size, size))
            find(lanes, at, field)
            low = at + affine.LOW * field
            store_wide(low, _zero() - load_wide(low))

    @inline
    def find_units(found, units, multiples):
        """Units and multiples of the scales of a group, then of its mins."""
        lanes = group_lanes()
        for kind in range(2):
            numbers = found + (affine.LOW if kind else affine.SCALE) * field
            to_lanes(numbers, 64, 4 * n_sub, lanes)
            to_lanes(found + sums, 64, 4 * n_sub, lanes + n_sub * VECTOR_BYTES)
            find_multiples(lanes, units + kind * VECTOR_BYTES)
            for i in range(0, n_sub * VECTOR_BYTES, VECTOR_BYTES):
                store_wide(multiples + kind * n_sub * VECTOR_BYTES + i, load_wide(lanes + 3 * n_sub * VECTOR_BYTES + i))

    @inline
    def encode_together(source, target, count, block, about):
        found, units, multiples, own = group_found(), group_units(), group_multiples(), block_multiples()
        find_sub_blocks(source, count, block, about, found)
        find_units(found, units, multiples)
        for i in range(count):
            for j in range(2 * n_sub):
                store_u8(own + j, np.uint8(load_f32(multiples + VECTOR_BYTES * j + 4 * i)))
            d, dmin = load_f32(units + 4 * i), load_f32(units + VECTOR_BYTES + 4 * i)
            store_block(source + SUPER_BLOCK_BYTES * i, target + block_bytes * i, d, dmin, own, found + 4 * n_sub * i, field)

    return by_blocks(encode_together, block_format.block_values, block_bytes, LANES)
