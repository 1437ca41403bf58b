"""Q2_K with importance."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q2_k import FOUR_BITS, Q2_K, WEIGHTED_SEARCH
from ggpy.kernels.encode.q2_k import DMIN, D, store_quants
from ggpy.kernels.encode.weighted.scale_min import super_block_encoder
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u8, store_f16, store_u8


@inline
def _store_block(source, target, d, dmin, multiples, found, stride):
    store_f16(target + D, d)
    store_f16(target + DMIN, dmin)
    for j in range(16):
        store_u8(target + j, np.uint8((load_u8(multiples + j) | load_u8(multiples + 16 + j) << 4) & 0xFF))
    store_quants(source, target, found, stride)


encode = super_block_encoder(Q2_K, WEIGHTED_SEARCH, n_sub=16, share=1, most=FOUR_BITS, store_block=_store_block)
