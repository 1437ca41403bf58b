"""TQ1_0: quants 0, 1, 2 as digits in base 3, five to a byte, the last four bytes four each."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.tq1_0 import RUNS, TQ1_0
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.rounding import reciprocal, to_u8
from ggpy.kernels.encode.ternary import largest_magnitude, ternary_quants
from ggpy.kernels.options import inline
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_i32, store_f16, store_i32x16, store_u8, store_u8x16
from ggpy.simd.vectors import constant, i32x16

VALUES, QUANT_BYTES = TQ1_0.block_values, 52
LAST_VALUES, LAST_BYTE = 240, RUNS[-1][0]

_three, _thirteen, _round_up = (constant(i32x16, n) for n in (3, 13, 242))
_inverse_of_243, _after = constant(i32x16, 17261), constant(i32x16, 22)  # ceil(2**22 / 243): exact for numerators below 2**12
_last = scratch(64)


@inline
def _fraction(number):
    """ceil(number * 256 / 243), for 0..242."""
    return number + (((number * _thirteen() + _round_up()) * _inverse_of_243()) >> _after())


@inline
def _store_run(source, target, inverse, stride):
    """Sixteen bytes of five digits each, a run of sixteen neighbouring values every `stride` bytes."""
    number = ternary_quants(source, inverse)
    for n in range(1, 5):
        number = number * _three() + ternary_quants(source + n * stride, inverse)
    store_u8x16(target, to_u8(_fraction(number)))


@inline
def _encode_block(source, target, count):
    d = largest_magnitude(source, VALUES)
    inverse = reciprocal(d)
    _store_run(source, target, inverse, 128)
    _store_run(source + 64, target + 16, inverse, 128)
    _store_run(source + 640, target + 32, inverse, 64)
    last = _last()
    store_i32x16(last, ternary_quants(source + 4 * LAST_VALUES, inverse))
    for j in range(4):
        number = 0
        for m in range(4):
            number = 3 * number + load_i32(last + 16 * m + 4 * j)
        store_u8(target + LAST_BYTE + j, np.uint8((3 * number * 256 + 242) // 243))
    store_f16(target + QUANT_BYTES, d)


encode = encoder(_encode_block, TQ1_0.block_values, TQ1_0.block_bytes)
