"""IQ4_NL with importance; the mean square is that of the block."""

from __future__ import annotations

from ggpy.blocks.iq4_nl import IQ4_NL
from ggpy.kernels.encode.iq4_nl import BLOCK_BYTES, VALUE_BYTES, store_blocks
from ggpy.kernels.encode.levels import SIZE, find_scales
from ggpy.kernels.encode.weighted.chunks import by_blocks
from ggpy.kernels.encode.weighted.weights import store_weights
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes, wide_constant
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32

_zero, _half_of_values = wide_constant(0.0), wide_constant(16.0)

_lanes = scratch(2 * SIZE)  # values, weights
_means, _found, _weights = scratch(VECTOR_BYTES), scratch(VECTOR_BYTES), scratch(VALUE_BYTES * LANES)


@inline
def _encode_together(source, target, count, block, about):
    lanes, means, found, weights = _lanes(), _means(), _found(), _weights()
    importance, row_blocks = about
    to_lanes(source, VALUE_BYTES, VALUE_BYTES, lanes)
    squares = _zero()
    for i in range(0, SIZE, VECTOR_BYTES):
        x = load_wide(lanes + i)
        squares = squares + x * x
    store_wide(means, squares / _half_of_values())
    column = block % row_blocks
    for i in range(LANES):
        at = VALUE_BYTES * i
        store_weights(source + at, importance + VALUE_BYTES * column, load_f32(means + 4 * i), 32, weights + at)
        column = column + 1 if column + 1 < row_blocks else 0
    to_lanes(weights, VALUE_BYTES, VALUE_BYTES, lanes + SIZE)
    find_scales(lanes, found)
    store_blocks(source, target, count, found)


encode = by_blocks(_encode_together, IQ4_NL.block_values, BLOCK_BYTES, LANES)
