"""Q4_1: smallest and largest value become quants 0 and 15."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q4_1 import Q4_1
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.extremes import first_largest, first_smallest
from ggpy.kernels.encode.nibbles import store_nibbles
from ggpy.kernels.encode.rounding import reciprocal, splat_f32, truncated
from ggpy.kernels.options import inline
from ggpy.simd.lanes import smaller
from ggpy.simd.memory import load_f32x16, store_f16
from ggpy.simd.vectors import constant, f32x16, i32x16

_half, _largest = constant(f32x16, 0.5), constant(i32x16, 15)


@inline
def encode_block(source, target, count):
    m = first_smallest(source)
    d = (first_largest(source) - m) / np.float32(15)
    inverse, least = splat_f32(reciprocal(d)), splat_f32(m)
    low = smaller(truncated((load_f32x16(source) - least) * inverse + _half()), _largest())
    high = smaller(truncated((load_f32x16(source + 64) - least) * inverse + _half()), _largest())
    store_f16(target, d)
    store_f16(target + 2, m)
    store_nibbles(target + 4, low, high)


encode = encoder(encode_block, Q4_1.block_values, Q4_1.block_bytes)
