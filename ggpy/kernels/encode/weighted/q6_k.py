"""Q6_K with importance, which itself is the weight of a value."""

from __future__ import annotations

from ggpy.blocks.q6_k import Q6_K
from ggpy.kernels.encode import symmetric
from ggpy.kernels.encode.chunks import FROM_F32, widen
from ggpy.kernels.encode.q6_k import BLOCK_BYTES, SUB_BLOCK_BYTES, SUB_VECTORS, SUPER_BLOCK_BYTES, TOGETHER, find, store_block
from ggpy.kernels.encode.weighted.chunks import by_blocks
from ggpy.kernels.encode.wide import VECTOR_BYTES, load_wide, store_wide, to_lanes
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch

_lanes = scratch(3 * SUB_VECTORS)  # values, weights, products of both
_found = scratch(symmetric.FIELDS * VECTOR_BYTES)
_weights = scratch(SUPER_BLOCK_BYTES * TOGETHER)


@inline
def _encode_together(source, target, count, block, about):
    lanes, found, weights = _lanes(), _found(), _weights()
    importance, row_blocks = about
    for i in range(TOGETHER):
        widen(importance + SUPER_BLOCK_BYTES * ((block + i) % row_blocks), FROM_F32, 256, weights + SUPER_BLOCK_BYTES * i)
    to_lanes(source, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes)
    to_lanes(weights, SUB_BLOCK_BYTES, SUB_BLOCK_BYTES, lanes + SUB_VECTORS)
    for i in range(0, SUB_VECTORS, VECTOR_BYTES):
        store_wide(lanes + 2 * SUB_VECTORS + i, load_wide(lanes + i) * load_wide(lanes + SUB_VECTORS + i))
    find(lanes, found, VECTOR_BYTES)
    for i in range(count):
        store_block(source + SUPER_BLOCK_BYTES * i, target + BLOCK_BYTES * i, found + 64 * i, VECTOR_BYTES)


encode = by_blocks(_encode_together, Q6_K.block_values, BLOCK_BYTES, TOGETHER)
