"""Blocks of 32 values under one scale: the dot and the unpacking that these formats share.

A block begins with its float16 scale d, then, where it has one, its float16 minimum m. A format gives `values(w)`, the 32 integers of
the block at address w, and `pair(w)`, the 64 of two blocks; value = d * (integer - center), or d * integer + m. Activations are the
int8_32 kind of one token.

The dot takes eight blocks at a time: each one's d and m, or d twice, are widened in one vector and multiplied with its activations' scale
and sum, which lie as pairs for this purpose. Then pairs, then a last one.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.linear import quantized_embed, quantized_linear
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import fma, sum_f32
from ggpy.simd.dot import dot_i8i8, dot_u8i8
from ggpy.simd.memory import gather_f16x16, load_f16, load_f32, load_f32x16, load_i8x32, load_i8x64, prefetch, store, store_f32
from ggpy.simd.vectors import Vector, concat, constant, convert, f32x8, f32x16, i32x8, i32x16, permute, splat

AHEAD = 4096  # bytes that a row's prefetch runs ahead of its dot

_zero, _no_sum, _no_sum_x8 = constant(f32x16, 0.0), constant(i32x16, 0), constant(i32x8, 0)
_to_f32, _to_f32x8 = convert(i32x16, f32x16), convert(i32x8, f32x8)
_all, _both = splat(f32x8), concat(f32x8)
_pair_0, _pair_1, _pair_2, _pair_3 = (permute(f32x16, [4 * p] * 8 + [4 * p + 2] * 8) for p in range(4))
_twice = permute(f32x16, [i // 2 * 2 for i in range(16)])
_odd = permute(f32x16, range(1, 16, 2))


def block32_kernels(
    values, pair, *, block_bytes: int, center: int = 0, has_min: bool = False, signed: bool = False
) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a format; `signed`: its integers are int8, else uint8 below 128 (below 256 where the CPU's dot allows it)."""
    store_values = store(Vector("i8" if signed else "u8", 32))
    product = dot_i8i8 if signed else dot_u8i8
    has_sum = has_min or center != 0

    @inline
    def low(w, d):
        return -load_f16(w + 2) if has_min else d * np.float32(center)

    @inline
    def products(w, x):
        return _to_f32(product(_no_sum(), pair(w), load_i8x64(x)))

    @inline
    def dot(w, x, k):
        total, other, minimum = _zero(), _zero(), _zero()
        pairs = x + k
        for _ in range(k // 256):
            for line in range(0, 8 * block_bytes, 64):
                prefetch(w + AHEAD + line)
            d = gather_f16x16(w, block_bytes)
            by = (d if has_min else _twice(d)) * load_f32x16(pairs)
            if has_sum:
                minimum = minimum + by
            total = fma(products(w, x), _pair_0(by), total)
            other = fma(products(w + 2 * block_bytes, x + 64), _pair_1(by), other)
            total = fma(products(w + 4 * block_bytes, x + 128), _pair_2(by), total)
            other = fma(products(w + 6 * block_bytes, x + 192), _pair_3(by), other)
            w += 8 * block_bytes
            x += 256
            pairs += 64
        rest = np.float32(0)
        for _ in range(k % 256 // 64):
            first, second = load_f16(w), load_f16(w + block_bytes)
            by = _both(_all(first * load_f32(pairs)), _all(second * load_f32(pairs + 8)))
            total = fma(products(w, x), by, total)
            if has_sum:
                rest -= low(w, first) * load_f32(pairs + 4) + low(w + block_bytes, second) * load_f32(pairs + 12)
            w += 2 * block_bytes
            x += 64
            pairs += 16
        if k % 64 != 0:
            d = load_f16(w)
            last = _to_f32x8(product(_no_sum_x8(), values(w), load_i8x32(x)))
            rest += sum_f32(last) * (d * load_f32(pairs)) - low(w, d) * load_f32(pairs + 4)
        if has_sum:
            below = sum_f32(_odd(minimum))
            rest += below if has_min else below * np.float32(-center)
        return sum_f32(total + other) + rest

    @inline
    def dots(v, w, x, k):
        return dot(v, x, k), dot(w, x, k)

    @inline
    def unpack(w, q, scales, mins, step):
        store_values(q, values(w))
        d = load_f16(w)
        store_f32(scales, d)
        store_f32(mins, low(w, d))

    return (
        quantized_linear(dots, unpack, block_values=32, block_bytes=block_bytes, group=32, signed=signed),
        quantized_embed(unpack, block_values=32, block_bytes=block_bytes, group=32, signed=signed),
    )
