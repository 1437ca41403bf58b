"""Super-blocks of 256 values: the dot and the unpacking that the K formats share.

A format gives, for a super-block at address w, `values(w, c)` for c = 0 … 3 -> u8x64, the integers in order; `words(v, w)` -> int16 lanes
with the integer scales and mins of two super-blocks, in whatever order is cheap; and where its float16 d lies, with dmin behind it if it
has mins:

    value = d * scale * integer - dmin * min      or      value = d * scale * (integer - center)

Activations are the int8_256 kind of one token: one scale for all 256, so products are summed in int32 across the super-block, each
weighted by its group's scale, and become float once; so are the sums of activations, weighted by mins or scales. Two rows are done at a
time: they share the loads of activations, and their scales are unpacked together."""

from __future__ import annotations

from collections.abc import Sequence

from ggpy.kernels.linear import quantized_embed, quantized_linear
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import fma, sum_halves
from ggpy.simd.dot import dot_i16, weighted_dot
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
    u8x64,
)

AHEAD = 2048  # bytes that a row's prefetch runs ahead of its dot: half a piece goes no further, and 4096 was up to a tenth slower

_zero, _zero_f32, _to_f32, _all_x4 = constant(i32x16, 0), constant(f32x16, 0.0), convert(i32x16, f32x16), splat(f32x4)
_lower, _upper = permute(f32x16, range(8)), permute(f32x16, range(8, 16))
_two_steps = shuffle(f32x4, [0, 0, 4, 4])
_both, _twice, _lane, _store_values = concat(f32x8), concat(i16x16), extract(f32x16), store(u8x64)


def superblock_kernels(values, words, *, block_bytes: int, group: int, step_at: int, scale_lanes: Sequence[int],
                       min_lanes: Sequence[int] = (), n_words: int = 16, center: int = 0) -> tuple[Kernel, Kernel]:  # fmt: skip
    """(linear, embed) of a format.

    group: values under one scale; step_at: offset of d; n_words: int16 lanes that `words` gives for a super-block, those of the second
    behind those of the first; scale_lanes, min_lanes: where among them each group's are.
    """
    has_min = bool(min_lanes)
    lanes = Vector("i16", 2 * n_words)

    def weights(row: int, half: int) -> list[int]:
        return [row * n_words + scale_lanes[(128 * half + 8 * i) // group] for i in range(16)]

    lower_a, upper_a, lower_b, upper_b = (weighted_dot(lanes, weights(row, half)) for row in range(2) for half in range(2))
    lows = permute(lanes, [row * n_words + (min_lanes or scale_lanes)[16 * i // group] for row in range(2) for i in range(16)])
    steps_at, d = (step_at, 0) if has_min else (step_at - 2, 1)  # two float16 are read: d and dmin, or what is before d, and d
    step_a, step_b, step_low = (permute(f32x4, picked) for picked in ([d] * 16, [d + 2] * 16, [1] * 8 + [3] * 8))
    centers = constant(f32x16, center)
    groups, floats = 256 // group, Vector("f32", 256 // group)
    group_scales, group_mins = permute(lanes, scale_lanes), permute(lanes, min_lanes or scale_lanes)
    numbers, all_groups = convert(Vector("i16", groups), floats), splat(floats)
    scatter_groups, group_centers = scatter(floats), constant(floats, center)

    @inline
    def finish(first, second, low):
        if center != 0:
            low = low * centers()
        both = sum_halves(_both(_lower(first) + _upper(first), _lower(second) + _upper(second)) - low)
        return _lane(both, 0), _lane(both, 8)

    @inline
    def products_a(q0, q1, q2, q3, x, by):
        """The 256 products of one row, weighted by the first super-block's scales in `by`."""
        products = lower_a(_zero(), q0, load_i8x64(x), q1, load_i8x64(x + 64), by)
        return _to_f32(upper_a(products, q2, load_i8x64(x + 128), q3, load_i8x64(x + 192), by))

    @inline
    def products_b(q0, q1, q2, q3, x, by):
        """The same, weighted by the second's."""
        products = lower_b(_zero(), q0, load_i8x64(x), q1, load_i8x64(x + 64), by)
        return _to_f32(upper_b(products, q2, load_i8x64(x + 128), q3, load_i8x64(x + 192), by))

    @inline
    def dots(a, b, x, k):
        total_a, total_b, low = _zero_f32(), _zero_f32(), _zero_f32()
        steps, sums = x + k, x + k + k // 64
        for _ in range(k // 256):
            for line in range(0, block_bytes, 64):
                prefetch(a + AHEAD + line)
                prefetch(b + AHEAD + line)
            by, sum16 = words(a, b), load_i16x16(sums)
            step = load_f16_pairs(a + steps_at, b + steps_at) * _all_x4(load_f32(steps))
            total_a = fma(products_a(values(a, 0), values(a, 1), values(a, 2), values(a, 3), x, by), step_a(step), total_a)
            total_b = fma(products_b(values(b, 0), values(b, 1), values(b, 2), values(b, 3), x, by), step_b(step), total_b)
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
            by, low = words(w, w), load_f16_pairs(w + steps_at, w + steps_at)
            q0, q1, q2, q3 = values(w, 0), values(w, 1), values(w, 2), values(w, 3)
            step_xy = low * _two_steps(_all_x4(load_f32(x + steps)), _all_x4(load_f32(y + steps)))
            step_zu = low * _two_steps(_all_x4(load_f32(z + steps)), _all_x4(load_f32(u + steps)))
            total_x = fma(products_a(q0, q1, q2, q3, x + at, by), step_a(step_xy), total_x)
            total_y = fma(products_a(q0, q1, q2, q3, y + at, by), step_b(step_xy), total_y)
            total_z = fma(products_a(q0, q1, q2, q3, z + at, by), step_a(step_zu), total_z)
            total_u = fma(products_a(q0, q1, q2, q3, u + at, by), step_b(step_zu), total_u)
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
        by, d = words(w, w), load_f16(w + step_at)
        for c in range(4):
            _store_values(q + 64 * c, values(w, c))
        scales = numbers(group_scales(by)) * all_groups(d)
        scatter_groups(scale, stride, scales)
        if has_min:
            scatter_groups(low, stride, numbers(group_mins(by)) * all_groups(load_f16(w + step_at + 2)))
        else:
            scatter_groups(low, stride, scales * group_centers())

    return (
        quantized_linear(dots, dot_tokens, unpack, block_values=256, block_bytes=block_bytes, group=group),
        quantized_embed(unpack, block_values=256, block_bytes=block_bytes, group=group),
    )
