"""F32: float32 as it is."""

from __future__ import annotations

from ggpy.kernels.linear import float_linear
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f32, load_f32x16


@inline
def values(w, i):
    return load_f32x16(w + 4 * i)


@inline
def one(w, i):
    return load_f32(w + 4 * i)


linear, embed = float_linear(values, one)
