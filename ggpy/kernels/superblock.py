"""Super-blocks of 256 values: the dot and the unpacking that these formats share.

A format gives, for a super-block at address w, `values(w)` -> four u8x64 (or i8x64), the integers in order; `words(v, w)` -> int16 lanes
with the integer scales and mins of two super-blocks, in whatever order is cheap; and where its float16 d lies, with dmin behind it if it
has mins:

    value = d * scale * integer - dmin * min      or      value = d * scale * (integer - center)

Activations are the int8_256 kind of one token: one scale for all 256, so products are summed in int32 across the super-block, each
weighted by its group's scale, and become float once; so are the sums of activations, weighted by mins or scales. Two rows are done at a
time: they share the loads of activations, and their scales are unpacked together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggpy.kernels.linear import quantized_embed, quantized_linear
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import fma, sum_halves
from ggpy.simd.dot import dot_i8i8, dot_u8i8
from ggpy.simd.memory import load_f16, load_f16_pairs, load_f32, load_i8x64, load_i16x16, prefetch, scatter, store
from ggpy.simd.vectors import (
    Vector,
    concat,
    constant,
    convert,
    extract,
    f32x4,
    f32x8,
    f32x16,
    i16x16,
    i32x16,
    permute,
    shuffle,
    splat,
)
from ggpy.simd.weighted import PACKED, dot_i16, weighted_dot

AHEAD = 2048  # bytes that a row's prefetch runs ahead of its dot: half a piece goes no further, and 4096 was up to a tenth slower

_zero, _zero_f32, _to_f32, _all_x4 = constant(i32x16, 0), constant(f32x16, 0.0), convert(i32x16, f32x16), splat(f32x4)
_lower, _upper = permute(f32x16, range(8)), permute(f32x16, range(8, 16))
_two_steps = shuffle(f32x4, [0, 0, 4, 4])
_both, _twice, _lane = concat(f32x8), concat(i16x16), extract(f32x16)


def superblock_kernels(values, words=None, *, block_bytes: int, group: int = 32, step_at: int = 0, scale_lanes: Sequence[int] = (),
                       min_lanes: Sequence[int] = (), n_words: int = 16, center: int = 0, largest: int = PACKED, signed: bool = False,
                       unit: float = 1, step: Any = None) -> tuple[Kernel, Kernel]:  # fmt: skip
    """(linear, embed) of a format.

    words: None where there is no scale but d. group: values under one scale; step_at: offset of d; n_words: int16 lanes that `words` gives
    for a super-block, those of the second behind those of the first; scale_lanes, min_lanes: where among them each group's are. largest,
    signed: of the integers. unit: what an integer scale of 1 is in units of d. step(w): d of a super-block, where it is not a float16.
    """
    has_min = bool(min_lanes)
    lanes = Vector("i16", 2 * n_words)
    groups, floats = 256 // group, Vector("f32", 256 // group)
    scale_lanes = scale_lanes or [0] * groups  # of words that are all 1
    product = dot_i8i8 if signed else dot_u8i8
    store_values = store(Vector("i8" if signed else "u8", 64))

    def weights(row: int, half: int):
        picked = [row * n_words + scale_lanes[(128 * half + 8 * i) // group] for i in range(16)]
        return weighted_dot(lanes, picked, largest=largest, signed=signed)

    lower_a, upper_a, lower_b, upper_b = (weights(row, half) for row in range(2) for half in range(2))
    lows = permute(lanes, [row * n_words + (min_lanes or scale_lanes)[16 * i // group] for row in range(2) for i in range(16)])
    before_d = 2 if step_at and not has_min else 0  # two float16 are read: d and dmin, or d and what is beside it in the block
    d = before_d // 2
    step_a, step_b, step_low = (
        permute(f32x4, picked) for picked in ([d] * 16, [d + 2] * 16, [1 if has_min else d] * 8 + [3 if has_min else d + 2] * 8)
    )
    centers, units, ones = constant(f32x16, center), constant(f32x4, unit), constant(lanes, 1)
    group_scales, group_mins = permute(lanes, scale_lanes), permute(lanes, min_lanes or scale_lanes)
    numbers, all_groups = convert(Vector("i16", groups), floats), splat(floats)
    scatter_groups, group_centers = scatter(floats), constant(floats, center)

    @inline
    def near_steps(v, w):
        return load_f16_pairs(v + step_at - before_d, w + step_at - before_d)

    @inline
    def far_steps(v, w):
        return _two_steps(_all_x4(step(v)), _all_x4(step(w)))

    read_steps = far_steps if step else near_steps

    @inline
    def scaled_steps(v, w):
        return read_steps(v, w) * units()

    @inline
    def near_step(w):
        return load_f16(w + step_at)

    @inline
    def no_words(v, w):
        return ones()

    both_steps, one_step, scale_words = scaled_steps if unit != 1 else read_steps, step or near_step, words or no_words

    @inline
    def finish(first, second, low):
        both = _both(_lower(first) + _upper(first), _lower(second) + _upper(second))
        if has_min or center != 0:
            both = both - (low if has_min else low * centers())
        both = sum_halves(both)
        return _lane(both, 0), _lane(both, 8)

    @inline
    def weighted_a(q, x, by):
        """The 256 products of one row, weighted by the first super-block's scales in `by`."""
        products = lower_a(_zero(), q[0], load_i8x64(x), q[1], load_i8x64(x + 64), by)
        return _to_f32(upper_a(products, q[2], load_i8x64(x + 128), q[3], load_i8x64(x + 192), by))

    @inline
    def weighted_b(q, x, by):
        """The same, weighted by the second's."""
        products = lower_b(_zero(), q[0], load_i8x64(x), q[1], load_i8x64(x + 64), by)
        return _to_f32(upper_b(products, q[2], load_i8x64(x + 128), q[3], load_i8x64(x + 192), by))

    @inline
    def unweighted(q, x, by):
        first = product(product(_zero(), q[0], load_i8x64(x)), q[1], load_i8x64(x + 64))
        return _to_f32(product(product(first, q[2], load_i8x64(x + 128)), q[3], load_i8x64(x + 192)))

    products_a, products_b = (weighted_a, weighted_b) if words else (unweighted, unweighted)

    @inline
    def dots(a, b, x, k):
        total_a, total_b, low = _zero_f32(), _zero_f32(), _zero_f32()
        steps, sums = x + k, x + k + k // 64
        for _ in range(k // 256):
            for line in range(0, block_bytes, 64):
                prefetch(a + AHEAD + line)
                prefetch(b + AHEAD + line)
            by, sum16 = scale_words(a, b), load_i16x16(sums)
            step = both_steps(a, b) * _all_x4(load_f32(steps))
            total_a = fma(products_a(values(a), x, by), step_a(step), total_a)
            total_b = fma(products_b(values(b), x, by), step_b(step), total_b)
            low = fma(_to_f32(dot_i16(lows(by), _twice(sum16, sum16))), step_low(step), low)
            a += block_bytes
            b += block_bytes
            x += 256
            steps += 4
            sums += 32
        return finish(total_a, total_b, low)

    @inline
    def dot_tokens(w, x, y, z, u, k):
        total_x, total_y, total_z, total_u = _zero_f32(), _zero_f32(), _zero_f32(), _zero_f32()
        low_xy, low_zu = _zero_f32(), _zero_f32()
        at, steps, sums = 0, k, k + k // 64
        for _ in range(k // 256):
            for line in range(0, block_bytes, 64):
                prefetch(w + AHEAD + line)
            by, low, q = scale_words(w, w), both_steps(w, w), values(w)
            step_xy = low * _two_steps(_all_x4(load_f32(x + steps)), _all_x4(load_f32(y + steps)))
            step_zu = low * _two_steps(_all_x4(load_f32(z + steps)), _all_x4(load_f32(u + steps)))
            total_x = fma(products_a(q, x + at, by), step_a(step_xy), total_x)
            total_y = fma(products_a(q, y + at, by), step_b(step_xy), total_y)
            total_z = fma(products_a(q, z + at, by), step_a(step_zu), total_z)
            total_u = fma(products_a(q, u + at, by), step_b(step_zu), total_u)
            mins = lows(by)
            low_xy = fma(_to_f32(dot_i16(mins, _twice(load_i16x16(x + sums), load_i16x16(y + sums)))), step_low(step_xy), low_xy)
            low_zu = fma(_to_f32(dot_i16(mins, _twice(load_i16x16(z + sums), load_i16x16(u + sums)))), step_low(step_zu), low_zu)
            w += block_bytes
            at += 256
            steps += 4
            sums += 32
        first, second = finish(total_x, total_y, low_xy)
        third, fourth = finish(total_z, total_u, low_zu)
        return first, second, third, fourth

    @inline
    def unpack(w, q, scale, low, stride):
        by, d, (q0, q1, q2, q3) = scale_words(w, w), one_step(w) * np.float32(unit), values(w)
        store_values(q, q0)
        store_values(q + 64, q1)
        store_values(q + 128, q2)
        store_values(q + 192, q3)
        scales = numbers(group_scales(by)) * all_groups(d)
        scatter_groups(scale, stride, scales)
        if has_min:
            scatter_groups(low, stride, numbers(group_mins(by)) * all_groups(load_f16(w + step_at + 2)))
        else:
            scatter_groups(low, stride, scales * group_centers())

    return (
        quantized_linear(dots, dot_tokens, unpack, block_values=256, block_bytes=block_bytes, group=group, signed=signed),
        quantized_embed(unpack, block_values=256, block_bytes=block_bytes, group=group, signed=signed),
    )
