"""Super-blocks of 256 values: the dot and the unpacking that the K formats share.

A format gives, for a super-block at address w, `values(w, c)` for c = 0 … 3 -> u8x64, the integers in order, and per group of 32 or 16
values its integer scale and min, so that value = d * scale * integer - m. Activations are the int8_256 kind of one token: one scale for
all 256, so products are summed in int32 across the super-block, each weighted by its group's scale, and become float once."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.linear import quantized_embed, quantized_linear
from ggpy.kernels.options import Kernel, inline
from ggpy.simd.arithmetic import fma, sum_f32
from ggpy.simd.dot import dot_u8i8
from ggpy.simd.memory import load, load_f32, load_i8x64, prefetch, store, store_f32
from ggpy.simd.vectors import Vector, constant, convert, extract, f32x16, i32x16, permute, splat, u8x64

AHEAD = 4096  # bytes that a row's prefetch runs ahead of its dot

_zero, _zero_f32, _to_f32, _all, _store_values = (
    constant(i32x16, 0),
    constant(f32x16, 0.0),
    convert(i32x16, f32x16),
    splat(f32x16),
    store(u8x64),
)


def superblock_kernels(values, scales, step, lows, *, block_bytes: int, group: int) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a format: scales(w) -> int32, lows(w) -> float32, each with as many lanes as there are groups; step(w) -> d."""
    groups = 256 // group
    integers, floats = Vector("i32", groups), Vector("f32", groups)
    no_low, load_sums, sum_bytes, sums_at = constant(floats, 0.0), load(floats), 4 * groups, {32: 8, 16: 4}[group]
    scale_lane, low_lane = extract(integers), extract(floats)
    spread_0, spread_1, spread_2, spread_3 = (permute(integers, [(64 * c + 4 * i) // group for i in range(16)]) for c in range(4))

    @inline
    def product(w, c, x):
        return dot_u8i8(_zero(), values(w, c), load_i8x64(x + 64 * c))

    @inline
    def dot(w, x, k):
        total, minimum = _zero_f32(), no_low()
        step_x, sums = x + k, x + k + k // sums_at
        for _ in range(k // 256):
            for line in range(0, block_bytes, 64):
                prefetch(w + AHEAD + line)
            by = scales(w)
            weighted = (
                product(w, 0, x) * spread_0(by)
                + product(w, 1, x) * spread_1(by)
                + product(w, 2, x) * spread_2(by)
                + product(w, 3, x) * spread_3(by)
            )
            total = fma(_to_f32(weighted), _all(step(w) * load_f32(step_x)), total)
            minimum = fma(lows(w), load_sums(sums), minimum)
            w += block_bytes
            x += 256
            step_x += 32
            sums += sum_bytes
        return sum_f32(total) - sum_f32(minimum)

    @inline
    def unpack(w, q, scale, low, stride):
        by, below, d = scales(w), lows(w), step(w)
        for c in range(4):
            _store_values(q + 64 * c, values(w, c))
        for g in range(groups):
            store_f32(scale + stride * g, d * np.float32(scale_lane(by, g)))
            store_f32(low + stride * g, low_lane(below, g))

    return (
        quantized_linear(dot, unpack, block_values=256, block_bytes=block_bytes, group=group),
        quantized_embed(unpack, block_values=256, block_bytes=block_bytes, group=group),
    )
