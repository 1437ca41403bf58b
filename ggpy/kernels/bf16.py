"""BF16: the upper half of a float32."""

from __future__ import annotations

import numpy as np
from numba.core import types

from ggpy.kernels.linear import float_linear
from ggpy.kernels.options import inline
from ggpy.kernels.tiled_bf16 import fill_with_bf16
from ggpy.simd.memory import load_u16, load_u16x16
from ggpy.simd.vectors import bitcast, constant, convert, f32x16, u16x16, u32x16

_widen, _up, _as_float = convert(u16x16, u32x16), constant(u32x16, 16), bitcast(u32x16, f32x16)
_bits_as_float = bitcast(types.uint32, types.float32)


@inline
def values(w, i):
    return _as_float(_widen(load_u16x16(w + 2 * i)) << _up())


@inline
def one(w, i):
    return _bits_as_float(np.uint32(load_u16(w + 2 * i)) << np.uint32(16))


linear, embed = float_linear(values, one, fill_with_bf16)
