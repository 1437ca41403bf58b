"""Q8_0: the largest magnitude becomes 127 or -127; quants round halves away from zero."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ggpy.blocks.q8_0 import Q8_0
from ggpy.kernels.encode.chunks import encoder, magnitude_bits
from ggpy.kernels.encode.rounding import half_away, reciprocal, splat_f32
from ggpy.kernels.options import inline
from ggpy.simd.lanes import larger, largest_lane
from ggpy.simd.memory import load_f32x16, store_f16, store_i8x16
from ggpy.simd.vectors import bitcast, convert, i8x16, i32x16

_as_float = bitcast(types.int32, types.float32)
_to_i8 = convert(i32x16, i8x16)


@inline
def encode_block(source, target, count):
    low, high = load_f32x16(source), load_f32x16(source + 64)
    d = _as_float(largest_lane(larger(magnitude_bits(low), magnitude_bits(high)))) / np.float32(127)
    inverse = splat_f32(reciprocal(d))
    store_f16(target, d)
    store_i8x16(target + 2, _to_i8(half_away(low * inverse)))
    store_i8x16(target + 18, _to_i8(half_away(high * inverse)))


encode = encoder(encode_block, Q8_0.block_values, Q8_0.block_bytes)
