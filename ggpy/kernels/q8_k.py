"""Q8_K: float32 d, 256 int8, sums of sixteen (not needed here); value = d * q. A format of intermediates that a file may still hold."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.linear import one_by_one, quantized_embed, quantized_linear
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import fma, sum_f32
from ggpy.simd.dot import dot_i8i8
from ggpy.simd.memory import load_f32, load_i8x64, store, store_f32
from ggpy.simd.target import target
from ggpy.simd.vectors import bitcast, constant, convert, f32x16, i8x64, i32x16, splat, u8x64

_moved = target().dots_any_u8
_zero, _zero_f32, _to_f32, _all = constant(i32x16, 0), constant(f32x16, 0.0), convert(i32x16, f32x16), splat(f32x16)
_sign, _unsigned, _store = constant(u8x64, 0x80), bitcast(i8x64, u8x64), store(u8x64)
_as_stored = constant(u8x64, 0x80 if _moved else 0)


@inline
def dot(w, x, k):
    total, scales = _zero_f32(), x + k
    for _ in range(k // 256):
        products = _zero()
        for c in range(0, 256, 64):
            products = dot_i8i8(products, load_i8x64(w + 4 + c), load_i8x64(x + c))
        total = fma(_to_f32(products), _all(load_f32(w) * load_f32(scales)), total)
        w += 292
        x += 256
        scales += 4
    return sum_f32(total)


dots, dot_tokens = one_by_one(dot)


@inline
def unpack(w, q, scales, mins, step):
    d = load_f32(w)
    for c in range(0, 256, 64):
        _store(q + c, _unsigned(load_i8x64(w + 4 + c)) ^ _as_stored())
    for g in range(8):
        store_f32(scales + step * g, d)
        store_f32(mins + step * g, d * np.float32(128 if _moved else 0))


linear = quantized_linear(dots, dot_tokens, unpack, block_values=256, block_bytes=292, group=32, signed=not _moved)
embed = quantized_embed(unpack, block_values=256, block_bytes=292, group=32, signed=not _moved)
