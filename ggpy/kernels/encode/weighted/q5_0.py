"""Q5_0 with importance: the search for the scale of quants around zero."""

from __future__ import annotations

from ggpy.blocks.q5_0 import Q5_0
from ggpy.kernels.encode.symmetric import SCALE, symmetric_quants, symmetric_search
from ggpy.kernels.encode.weighted.block32 import block32_encoder, store_fifth_bits, store_nibbles
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f32, store_f16

CENTRE = 16  # the quant that stands for zero

_, _kept_quants = symmetric_quants(32, CENTRE)


@inline
def _store_block(target, quants, at, stride):
    store_f16(target, load_f32(at + SCALE * stride))
    store_fifth_bits(target + 2, quants)
    store_nibbles(target + 6, quants)


encode = block32_encoder(Q5_0, symmetric_search(32, CENTRE), _kept_quants, _store_block)
