"""Blocks of 32 values under one scale: the dot and the unpacking that these formats share.

A format gives, for a block at address w: values(w) -> its 32 integers, scale(w) -> float32, and low(w, scale) -> float32, so that
value = scale * integer - low. Activations are the int8_32 kind of one token.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.linear import quantized_embed, quantized_linear
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import fma, sum_f32
from ggpy.simd.dot import dot_i8i8, dot_u8i8
from ggpy.simd.memory import load_f32, load_i8x32, load_i8x64, prefetch, store, store_f32
from ggpy.simd.vectors import Vector, concat, constant, convert, f32x8, f32x16, i32x8, i32x16, splat

AHEAD = 4096  # bytes that a row's prefetch runs ahead of its dot

_zero_f32, _zero_pair, _zero_one = constant(f32x16, 0.0), constant(i32x16, 0), constant(i32x8, 0)
_to_f32, _to_f32_one = convert(i32x16, f32x16), convert(i32x8, f32x8)
_scales, _scale_one, _both = splat(f32x8), splat(f32x8), concat(f32x8)


def block32_kernels(values, scale, low, *, block_bytes: int, signed: bool = False) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a format; `signed`: its integers are int8, else uint8 below 128 (below 256 where the CPU's dot allows it)."""
    integers = Vector("i8" if signed else "u8", 32)
    join, store_values = concat(integers), store(integers)
    product = dot_i8i8 if signed else dot_u8i8

    @inline
    def dot(w, x, k):
        total, minimum = _zero_f32(), np.float32(0)
        scales, sums = x + k, x + k + k // 8
        pairs = k // 64
        for _ in range(pairs):
            prefetch(w + AHEAD)
            v = w + block_bytes
            first, second = scale(w), scale(v)
            sum_of = product(_zero_pair(), join(values(w), values(v)), load_i8x64(x))
            by = _both(_scales(first * load_f32(scales)), _scales(second * load_f32(scales + 4)))
            total = fma(_to_f32(sum_of), by, total)
            minimum += low(w, first) * load_f32(sums) + low(v, second) * load_f32(sums + 4)
            w += 2 * block_bytes
            x += 64
            scales += 8
            sums += 8
        result = sum_f32(total) - minimum
        if k % 64 != 0:
            first = scale(w)
            sum_of = product(_zero_one(), values(w), load_i8x32(x))
            result += sum_f32(_to_f32_one(sum_of)) * (first * load_f32(scales)) - low(w, first) * load_f32(sums)
        return result

    @inline
    def unpack(w, q, scales, mins, step):
        store_values(q, values(w))
        first = scale(w)
        store_f32(scales, first)
        store_f32(mins, low(w, first))

    return (
        quantized_linear(dot, unpack, block_values=32, block_bytes=block_bytes, group=32, signed=signed),
        quantized_embed(unpack, block_values=32, block_bytes=block_bytes, group=32, signed=signed),
    )
