"""Q5_K with importance."""

from __future__ import annotations

from ggpy.blocks.q5_k import Q5_K, WEIGHTED_SEARCH
from ggpy.kernels.encode.q5_k import store_quants
from ggpy.kernels.encode.scale_min import SIX_BITS, quant_rounding
from ggpy.kernels.encode.weighted.scale_min import store_in_six_bits, super_block_encoder
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import store_f16

_round_quants = quant_rounding(WEIGHTED_SEARCH.largest)
_quants = scratch(256)


@inline
def _store_block(source, target, d, dmin, multiples, found, stride):
    store_f16(target, d)
    store_f16(target + 2, dmin)
    quants = _quants()
    store_in_six_bits(target + 4, multiples, 63)
    _round_quants(source, target, multiples, found, stride, quants)
    store_quants(target, quants)


encode = super_block_encoder(Q5_K, WEIGHTED_SEARCH, n_sub=8, share=2, most=int(SIX_BITS), store_block=_store_block)
