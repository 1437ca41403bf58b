"""IQ4_XS: a lane for each sub-block of two or four super-blocks in the search for the scale, of which each gets six bits."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.iq4_xs import CENTRE, IQ4_XS
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.iq4_nl import square_lanes
from ggpy.kernels.encode.levels import SIZE, find_scales, store_levels
from ggpy.kernels.encode.q6_k import first_peak_of
from ggpy.kernels.encode.rounding import nearest_scalar, reciprocal
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32, load_u8, store_f16, store_u8, store_u16

BLOCK_BYTES = IQ4_XS.block_bytes
SUPER_BLOCK_BYTES, SUB_BLOCK_BYTES = 1024, 128  # of float32 values
SCALES_H, SCALES_L, QS = 2, 4, 8  # where the fields after d begin
TOGETHER = LANES // 8  # super-blocks

_lanes = scratch(2 * SIZE)  # values, squares
_found = scratch(VECTOR_BYTES)
_sixes = scratch(8)


@inline
def store_block(source, target, found):
    """One super-block with the eight scales at `found`, which it keeps as multiples of a number not yet rounded to float16."""
    sixes, high = _sixes(), 0
    d = -first_peak_of(found, 8) / np.float32(CENTRE)
    inverse = reciprocal(d)
    store_f16(target, d)
    for j in range(8):
        scale = min(max(nearest_scalar(inverse * load_f32(found + 4 * j)), -CENTRE), CENTRE - 1)
        store_levels(source + SUB_BLOCK_BYTES * j, target + QS + 16 * j, reciprocal(d * np.float32(scale)))
        six = scale + CENTRE
        store_u8(sixes + j, np.uint8(six & 15))
        high |= (six >> 4) << 2 * j
    store_u16(target + SCALES_H, np.uint16(high))
    for j in range(4):
        store_u8(target + SCALES_L + j, np.uint8(load_u8(sixes + 2 * j) | load_u8(sixes + 2 * j + 1) << 4))


@inline
def _encode_together(source, target, count):
    lanes, found = _lanes(), _found()
    to_lanes(source, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
    square_lanes(lanes)
    find_scales(lanes, found)
    for i in range(count):
        store_block(source + SUPER_BLOCK_BYTES * i, target + BLOCK_BYTES * i, found + 32 * i)


encode = encoder(_encode_together, IQ4_XS.block_values, BLOCK_BYTES, TOGETHER)
