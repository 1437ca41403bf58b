"""Q5_1 with importance: the search for scale and min."""

from __future__ import annotations

from ggpy.blocks.q5_1 import Q5_1, WEIGHTED_SEARCH
from ggpy.kernels.encode.affine import LOW, SCALE, affine_quants, affine_search
from ggpy.kernels.encode.weighted.block32 import block32_encoder, store_fifth_bits, store_nibbles
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f32, store_f16

_, _kept_quants = affine_quants(32, WEIGHTED_SEARCH.largest)


@inline
def _store_block(target, quants, at, stride):
    store_f16(target, load_f32(at + SCALE * stride))
    store_f16(target + 2, load_f32(at + LOW * stride))
    store_fifth_bits(target + 4, quants)
    store_nibbles(target + 8, quants)


encode = block32_encoder(Q5_1, affine_search(32, WEIGHTED_SEARCH), _kept_quants, _store_block)
