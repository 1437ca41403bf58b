"""IQ4_XS with importance; the mean square is that of the super-block."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.iq4_xs import IQ4_XS
from ggpy.kernels.encode.chunks import FROM_F32
from ggpy.kernels.encode.iq4_xs import BLOCK_BYTES, SUB_BLOCK_BYTES, SUPER_BLOCK_BYTES, TOGETHER, store_block
from ggpy.kernels.encode.levels import SIZE, find_scales
from ggpy.kernels.encode.weighted.chunks import by_blocks
from ggpy.kernels.encode.weighted.weights import mean_squares, store_super_block_weights
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch

_lanes = scratch(2 * SIZE)  # values, weights
_means, _weights, _found = scratch(4 * LANES), scratch(SUPER_BLOCK_BYTES * TOGETHER), scratch(VECTOR_BYTES)


@inline
def _encode_together(source, target, count, block, about):
    lanes, means, weights, found = _lanes(), _means(), _weights(), _found()
    mean_squares(source, FROM_F32, 256, LANES, np.float32(1), np.float32(128), means)  # twice the mean, and no overflow of twice the sum
    place = (about[0], about[1], block)
    for first in range(0, count, TOGETHER):
        start = source + SUPER_BLOCK_BYTES * first
        store_super_block_weights(source, count, first, place, means, weights, TOGETHER)
        to_lanes(start, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
        to_lanes(weights, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes + SIZE)
        find_scales(lanes, found)
        for i in range(min(TOGETHER, count - first)):
            store_block(start + SUPER_BLOCK_BYTES * i, target + BLOCK_BYTES * (first + i), found + 32 * i)


encode = by_blocks(_encode_together, IQ4_XS.block_values, BLOCK_BYTES, LANES)
