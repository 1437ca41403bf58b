"""Q4_K: the search for scale and min with quants 0..15, packed two to a byte."""

from __future__ import annotations

from ggpy.blocks.q4_k import Q4_K, SEARCH
from ggpy.kernels.encode.scale_min import super_block_encoder
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u8x32, store_u8x32
from ggpy.simd.vectors import constant, u8x32

_four = constant(u8x32, 4)


@inline
def store_quants(target, quants):
    for j in range(4):
        low, high = load_u8x32(quants + 64 * j), load_u8x32(quants + 64 * j + 32)
        store_u8x32(target + 16 + 32 * j, low | high << _four())


encode = super_block_encoder(Q4_K, SEARCH, store_quants)
