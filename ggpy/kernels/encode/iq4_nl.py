"""IQ4_NL: a lane for each of sixteen or 32 blocks in the search for the scale."""

from __future__ import annotations

from ggpy.blocks.iq4_nl import IQ4_NL
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.levels import SIZE, find_scales, store_levels
from ggpy.kernels.encode.rounding import reciprocal
from ggpy.kernels.encode.wide import LANES, VECTOR_BYTES, load_wide, store_wide, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32, store_f16

VALUE_BYTES, BLOCK_BYTES = 128, IQ4_NL.block_bytes

_lanes = scratch(2 * SIZE)  # values, squares
_found = scratch(VECTOR_BYTES)


@inline
def store_blocks(source, target, count, found):
    """`count` blocks with the scales at `found`."""
    for i in range(count):
        scale, block = load_f32(found + 4 * i), target + BLOCK_BYTES * i
        store_f16(block, scale)
        store_levels(source + VALUE_BYTES * i, block + 2, reciprocal(scale))


@inline
def square_lanes(lanes):
    """Weights of values without importance: their squares."""
    for i in range(0, SIZE, VECTOR_BYTES):
        x = load_wide(lanes + i)
        store_wide(lanes + SIZE + i, x * x)


@inline
def _encode_together(source, target, count):
    lanes, found = _lanes(), _found()
    to_lanes(source, VALUE_BYTES, VALUE_BYTES, lanes)
    square_lanes(lanes)
    find_scales(lanes, found)
    store_blocks(source, target, count, found)


encode = encoder(_encode_together, IQ4_NL.block_values, BLOCK_BYTES, LANES)
