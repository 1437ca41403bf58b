"""Blocks of 32 values under one scale: the dot and the unpacking that these formats share.

A block begins with its float16 scale d, then, where it has one, its float16 minimum m. A format gives `values(w)`, the 32 integers of
the block at address w, and `pair(w)`, the 64 of two blocks; value = d * (integer - center), or d * integer + m. Activations are the
int8_32 kind of one token.

A dot takes eight blocks at a time: each one's d and m, or d twice, are widened in one vector and multiplied with its activations' scale
and sum, which lie as pairs for this purpose. Then pairs, then a last one. Two rows are done at a time, or four tokens.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.linear import quantized_embed, quantized_linear
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import fma, sum_f32, sum_halves
from ggpy.simd.dot import dot_i8i8, dot_u8i8
from ggpy.simd.memory import (
    gather_f16x16,
    load_f16,
    load_f16_pairs,
    load_f32,
    load_f32x4,
    load_f32x16,
    load_i8x32,
    load_i8x64,
    prefetch,
    store,
    store_f32,
    store_f32x8,
)
from ggpy.simd.vectors import Vector, concat, constant, convert, extract, f32x4, f32x8, f32x16, i32x8, i32x16, permute, shuffle

AHEAD = 2048  # bytes that a row's prefetch runs ahead of its dot: half a piece goes no further, and 4096 was up to a tenth slower

_zero, _no_sum, _no_sum_x8 = constant(f32x16, 0.0), constant(i32x16, 0), constant(i32x8, 0)
_to_f32, _to_f32x8 = convert(i32x16, f32x16), convert(i32x8, f32x8)
_pair_0, _pair_1, _pair_2, _pair_3 = (permute(f32x16, [4 * p] * 8 + [4 * p + 2] * 8) for p in range(4))
_doubled, _doubled_x4 = permute(f32x16, [i // 2 * 2 for i in range(16)]), permute(f32x4, [0, 0, 2, 2])
_even, _odd = permute(f32x16, range(0, 16, 2)), permute(f32x16, range(1, 16, 2))
_lower, _upper = permute(f32x16, range(8)), permute(f32x16, range(8, 16))
_zero_x4, _widened = constant(f32x4, 0.0), shuffle(f32x4, [*range(8), *range(4, 8), *range(4, 8)])
_both, _lane, _nothing_x8 = concat(f32x8), extract(f32x16), constant(f32x8, 0.0)


def block32_kernels(
    values, pair, *, block_bytes: int, center: int = 0, has_min: bool = False, signed: bool = False, scales: tuple | None = None
) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a format; `signed`: its integers are int8, else uint8 below 128 (below 256 where the CPU's dot allows it).

    scales: where d is no float16, three functions of w that give it: eight blocks' as f32x16 and two blocks' as f32x4, each twice, and one
    as float32.
    """
    store_values, store_pair = (store(Vector("i8" if signed else "u8", lanes)) for lanes in (32, 64))
    product = dot_i8i8 if signed else dot_u8i8
    has_sum = has_min or center != 0
    centers, centers_x8 = constant(f32x16, center), constant(f32x8, center)

    @inline
    def eight_f16(w):
        """d and m, or d twice, of eight blocks."""
        d = gather_f16x16(w, block_bytes)
        return d if has_min else _doubled(d)

    @inline
    def two_f16(w):
        """d and m, or d twice, of two blocks."""
        d = load_f16_pairs(w, w + block_bytes)
        return d if has_min else _doubled_x4(d)

    eight, both, one = scales or (eight_f16, two_f16, load_f16)

    @inline
    def low(w, d):
        return -load_f16(w + 2) if has_min else d * np.float32(center)

    @inline
    def products(q, x):
        return _to_f32(product(_no_sum(), q, load_i8x64(x)))

    @inline
    def two(w):
        return _widened(both(w), _zero_x4())

    @inline
    def step(total, other, q0, q1, q2, q3, x, by):
        total = fma(products(q0, x), _pair_0(by), total)
        other = fma(products(q1, x + 64), _pair_1(by), other)
        return fma(products(q2, x + 128), _pair_2(by), total), fma(products(q3, x + 192), _pair_3(by), other)

    @inline
    def finish(first, first_below, second, second_below):
        """The two sums: products' lanes, and the odd lanes of d times the activations' scale, m times their sum."""
        below = _both(_odd(first_below), _odd(second_below))
        both = _both(_lower(first) + _upper(first), _lower(second) + _upper(second))
        both = sum_halves(both + below if has_min else both - below * centers() if has_sum else both)
        return _lane(both, 0), _lane(both, 8)

    @inline
    def last(w, x, k):
        """The last block where k is no multiple of 64."""
        d, pairs = one(w), x + k + k // 4 - 8
        products = _to_f32x8(product(_no_sum_x8(), values(w), load_i8x32(x + k - 32)))
        return sum_f32(products) * (d * load_f32(pairs)) - low(w, d) * load_f32(pairs + 4)

    @inline
    def dots(v, w, x, k):
        total_v, other_v, below_v, total_w, other_w, below_w = _zero(), _zero(), _zero(), _zero(), _zero(), _zero()
        at, pairs = x, x + k
        for _ in range(k // 256):
            for line in range(0, 8 * block_bytes, 64):
                prefetch(v + AHEAD + line)
                prefetch(w + AHEAD + line)
            by_v, by_w = eight(v) * load_f32x16(pairs), eight(w) * load_f32x16(pairs)
            if has_sum:
                below_v, below_w = below_v + by_v, below_w + by_w
            q0, q1, q2, q3 = pair(v), pair(v + 2 * block_bytes), pair(v + 4 * block_bytes), pair(v + 6 * block_bytes)
            total_v, other_v = step(total_v, other_v, q0, q1, q2, q3, at, by_v)
            q0, q1, q2, q3 = pair(w), pair(w + 2 * block_bytes), pair(w + 4 * block_bytes), pair(w + 6 * block_bytes)
            total_w, other_w = step(total_w, other_w, q0, q1, q2, q3, at, by_w)
            v += 8 * block_bytes
            w += 8 * block_bytes
            at += 256
            pairs += 64
        for _ in range(k % 256 // 64):
            scales = _widened(load_f32x4(pairs), _zero_x4())
            by_v, by_w = two(v) * scales, two(w) * scales
            if has_sum:
                below_v, below_w = below_v + by_v, below_w + by_w
            total_v = fma(products(pair(v), at), _pair_0(by_v), total_v)
            total_w = fma(products(pair(w), at), _pair_0(by_w), total_w)
            v += 2 * block_bytes
            w += 2 * block_bytes
            at += 64
            pairs += 16
        first, second = finish(total_v + other_v, below_v, total_w + other_w, below_w)
        if k % 64 != 0:
            return first + last(v, x, k), second + last(w, x, k)
        return first, second

    @inline
    def dot_tokens(w, x, y, z, u, k):
        total_x, total_y, total_z, total_u = _zero(), _zero(), _zero(), _zero()
        other_x, other_y, other_z, other_u = _zero(), _zero(), _zero(), _zero()
        below_x, below_y, below_z, below_u = _zero(), _zero(), _zero(), _zero()
        at, pairs = 0, k
        for _ in range(k // 256):
            for line in range(0, 8 * block_bytes, 64):
                prefetch(w + AHEAD + line)
            d = eight(w)
            q0, q1, q2, q3 = pair(w), pair(w + 2 * block_bytes), pair(w + 4 * block_bytes), pair(w + 6 * block_bytes)
            by_x, by_y = d * load_f32x16(x + pairs), d * load_f32x16(y + pairs)
            by_z, by_u = d * load_f32x16(z + pairs), d * load_f32x16(u + pairs)
            if has_sum:
                below_x, below_y, below_z, below_u = below_x + by_x, below_y + by_y, below_z + by_z, below_u + by_u
            total_x, other_x = step(total_x, other_x, q0, q1, q2, q3, x + at, by_x)
            total_y, other_y = step(total_y, other_y, q0, q1, q2, q3, y + at, by_y)
            total_z, other_z = step(total_z, other_z, q0, q1, q2, q3, z + at, by_z)
            total_u, other_u = step(total_u, other_u, q0, q1, q2, q3, u + at, by_u)
            w += 8 * block_bytes
            at += 256
            pairs += 64
        for _ in range(k % 256 // 64):
            d, q = two(w), pair(w)
            by_x, by_y = d * _widened(load_f32x4(x + pairs), _zero_x4()), d * _widened(load_f32x4(y + pairs), _zero_x4())
            by_z, by_u = d * _widened(load_f32x4(z + pairs), _zero_x4()), d * _widened(load_f32x4(u + pairs), _zero_x4())
            if has_sum:
                below_x, below_y, below_z, below_u = below_x + by_x, below_y + by_y, below_z + by_z, below_u + by_u
            total_x = fma(products(q, x + at), _pair_0(by_x), total_x)
            total_y = fma(products(q, y + at), _pair_0(by_y), total_y)
            total_z = fma(products(q, z + at), _pair_0(by_z), total_z)
            total_u = fma(products(q, u + at), _pair_0(by_u), total_u)
            w += 2 * block_bytes
            at += 64
            pairs += 16
        a, b = finish(total_x + other_x, below_x, total_y + other_y, below_y)
        c, d = finish(total_z + other_z, below_z, total_u + other_u, below_u)
        if k % 64 != 0:
            return a + last(w, x, k), b + last(w, y, k), c + last(w, z, k), d + last(w, u, k)
        return a, b, c, d

    @inline
    def unpack(w, q, scales, mins, step):
        store_values(q, values(w))
        d = one(w)
        store_f32(scales, d)
        store_f32(mins, low(w, d))

    @inline
    def unpack_blocks(w, count, q, scales, mins):
        whole = count // 8 * 8
        for i in range(0, whole, 8):
            at, to = w + i * block_bytes, q + 32 * i
            by = eight(at)
            store_pair(to, pair(at))
            store_pair(to + 64, pair(at + 2 * block_bytes))
            store_pair(to + 128, pair(at + 4 * block_bytes))
            store_pair(to + 192, pair(at + 6 * block_bytes))
            store_f32x8(scales + 4 * i, _even(by))
            store_f32x8(mins + 4 * i, _nothing_x8() - _odd(by) if has_min else _even(by) * centers_x8())
        for i in range(whole, count):
            unpack(w + i * block_bytes, q + 32 * i, scales + 4 * i, mins + 4 * i, 4)

    return (
        quantized_linear(
            dots, dot_tokens, unpack, block_values=32, block_bytes=block_bytes, group=32, signed=signed, unpack_blocks=unpack_blocks
        ),
        quantized_embed(unpack, block_values=32, block_bytes=block_bytes, group=32, signed=signed),
    )
