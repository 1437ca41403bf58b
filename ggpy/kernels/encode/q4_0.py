"""Q4_0: the value of the largest magnitude becomes quant 0; quant 8 stands for zero."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.q4_0 import Q4_0
from ggpy.kernels.encode.chunks import encoder
from ggpy.kernels.encode.extremes import first_peak
from ggpy.kernels.encode.nibbles import store_nibbles
from ggpy.kernels.encode.rounding import reciprocal, splat_f32, truncated
from ggpy.kernels.options import inline
from ggpy.simd.lanes import smaller
from ggpy.simd.memory import load_f32x16, store_f16
from ggpy.simd.vectors import constant, f32x16, i32x16

_round, _largest = constant(f32x16, 8.5), constant(i32x16, 15)


@inline
def encode_block(source, target, count):
    d = first_peak(source) / np.float32(-8)
    inverse = splat_f32(reciprocal(d))
    low = smaller(truncated(load_f32x16(source) * inverse + _round()), _largest())
    high = smaller(truncated(load_f32x16(source + 64) * inverse + _round()), _largest())
    store_f16(target, d)
    store_nibbles(target + 2, low, high)


encode = encoder(encode_block, Q4_0.block_values, Q4_0.block_bytes)
