"""TQ2_0: quants 0, 1, 2, four to a byte."""

from __future__ import annotations

from ggpy.blocks.tq2_0 import TQ2_0
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import reciprocal, to_u8
from ggpy.kernels.encode.ternary import largest_magnitude, ternary_quants
from ggpy.kernels.options import inline
from ggpy.simd.memory import store_f16, store_u8x16
from ggpy.simd.vectors import constant, i32x16

HALF_BYTES, RUN_BYTES = 512, 128  # of float32 values: half a block; 32 neighbours, which lie in neighbouring bytes
VALUES, QUANT_BYTES = TQ2_0.block_values, 64

_two, _four, _six = (constant(i32x16, n) for n in (2, 4, 6))


@inline
def _encode_block(source, target, count):
    d = largest_magnitude(source, VALUES)
    inverse = reciprocal(d)
    for half in range(2):
        for i in range(0, 32, 16):
            x = source + HALF_BYTES * half + 4 * i
            low = ternary_quants(x, inverse) | ternary_quants(x + RUN_BYTES, inverse) << _two()
            high = ternary_quants(x + 2 * RUN_BYTES, inverse) << _four() | ternary_quants(x + 3 * RUN_BYTES, inverse) << _six()
            store_u8x16(target + 32 * half + i, to_u8(low | high))
    store_f16(target + QUANT_BYTES, d)


encode = encoder(_encode_block, TQ2_0.block_values, TQ2_0.block_bytes)
