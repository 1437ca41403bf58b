"""F16: IEEE half precision, widened."""

from __future__ import annotations

from ggpy.kernels.linear import float_linear
from ggpy.kernels.options import inline
from ggpy.simd.memory import load_f16, load_f16x16
from ggpy.simd.vectors import convert, f16x16, f32x16

_widen = convert(f16x16, f32x16)


@inline
def values(w, i):
    return _widen(load_f16x16(w + 2 * i))


@inline
def one(w, i):
    return load_f16(w + 2 * i)


linear, embed = float_linear(values, one)
