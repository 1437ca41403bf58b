"""Q5_1: smallest and largest value become quants 0 and 31."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q5_1 import Q5_1
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.extremes import first_largest, first_smallest
from ggpy.kernels.encode.nibbles import store_fifth_bits, store_nibbles
from ggpy.kernels.encode.rounding import reciprocal, splat_f32, truncated
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f32x16, store_f16
from ggpy.simd.vectors import constant, f32x16

_half = constant(f32x16, 0.5)


@inline
def encode_block(source, target, count):
    m = first_smallest(source)
    d = (first_largest(source) - m) / np.float32(31)
    inverse, least = splat_f32(reciprocal(d)), splat_f32(m)
    low = truncated((load_f32x16(source) - least) * inverse + _half())
    high = truncated((load_f32x16(source + 64) - least) * inverse + _half())
    store_f16(target, d)
    store_f16(target + 2, m)
    store_fifth_bits(target + 4, low, high)
    store_nibbles(target + 8, low, high)


encode = encoder(encode_block, Q5_1.block_values, Q5_1.block_bytes)
