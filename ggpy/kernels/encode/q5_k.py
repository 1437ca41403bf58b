"""Q5_K: the search for scale and min with quants 0..31, four bits packed two to a byte and the fifth bits apart."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q5_k import Q5_K, SEARCH
from ggpy.kernels.encode.scale_min import super_block_encoder
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u8x32, store_u8x32
from ggpy.simd.vectors import constant, splat, u8x32

_none, _one, _four, _fifteen = constant(u8x32, 0), constant(u8x32, 1), constant(u8x32, 4), constant(u8x32, 15)
_splat = splat(u8x32)


@inline
def store_quants(target, quants):
    fifth_bits = _none()
    for j in range(4):
        low, high = load_u8x32(quants + 64 * j), load_u8x32(quants + 64 * j + 32)
        store_u8x32(target + 48 + 32 * j, (low & _fifteen()) | high << _four())
        plane = _splat(np.uint8(2 * j))
        fifth_bits = fifth_bits | (low >> _four()) << plane | ((high >> _four()) << plane) << _one()
    store_u8x32(target + 16, fifth_bits)


encode = super_block_encoder(Q5_K, SEARCH, store_quants)
