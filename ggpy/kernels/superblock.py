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
from ggpy.simd.memory import load_f32, load_f32x8, load_f32x16, load_i8x64, prefetch, store, store_f32
from ggpy.simd.vectors import constant, convert, extract, f32x8, f32x16, i32x8, i32x16, permute, splat, u8x64

AHEAD = 4096  # bytes that a row's prefetch runs ahead of its dot

_zero, _zero_f32, _zero_f32x8 = constant(i32x16, 0), constant(f32x16, 0.0), constant(f32x8, 0.0)
_to_f32, _all, _all_x8 = convert(i32x16, f32x16), splat(f32x16), splat(f32x8)
_scale_at, _scale_at_x8, _low_at, _low_at_x8 = extract(i32x16), extract(i32x8), extract(f32x16), extract(f32x8)
_store_values = store(u8x64)
_sub_block_pair_0, _sub_block_pair_1, _sub_block_pair_2, _sub_block_pair_3 = (
    permute(i32x8, [2 * c] * 8 + [2 * c + 1] * 8) for c in range(4)
)
_quarter_0, _quarter_1, _quarter_2, _quarter_3 = (permute(i32x16, [4 * c + i // 4 for i in range(16)]) for c in range(4))


@inline
def _prefetch_block(w, block_bytes):
    for line in range(0, block_bytes, 64):
        prefetch(w + AHEAD + line)


@inline
def _product(values, w, c, x):
    return dot_u8i8(_zero(), values(w, c), load_i8x64(x + 64 * c))


def groups_of_32(values, scales, step, lows, *, block_bytes: int) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a format with eight sub-blocks: scales(w) -> i32x8, step(w) -> d, lows(w) -> f32x8, the eight m."""

    @inline
    def dot(w, x, k):
        total, minimum = _zero_f32(), _zero_f32x8()
        step_x, sums = x + k, x + k + k // 8
        for _ in range(k // 256):
            _prefetch_block(w, block_bytes)
            by = scales(w)
            weighted = (
                _product(values, w, 0, x) * _sub_block_pair_0(by)
                + _product(values, w, 1, x) * _sub_block_pair_1(by)
                + _product(values, w, 2, x) * _sub_block_pair_2(by)
                + _product(values, w, 3, x) * _sub_block_pair_3(by)
            )
            total = fma(_to_f32(weighted), _all(step(w) * load_f32(step_x)), total)
            minimum = fma(lows(w), load_f32x8(sums), minimum)
            w += block_bytes
            x += 256
            step_x += 32
            sums += 32
        return sum_f32(total) - sum_f32(minimum)

    @inline
    def unpack(w, q, scale, low, stride):
        by, below, d = scales(w), lows(w), step(w)
        for c in range(4):
            _store_values(q + 64 * c, values(w, c))
        for g in range(8):
            store_f32(scale + stride * g, d * np.float32(_scale_at_x8(by, g)))
            store_f32(low + stride * g, _low_at_x8(below, g))

    return (
        quantized_linear(dot, unpack, block_values=256, block_bytes=block_bytes, group=32),
        quantized_embed(unpack, block_values=256, block_bytes=block_bytes, group=32),
    )


def groups_of_16(values, scales, step, lows, *, block_bytes: int) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a format with sixteen sub-blocks: scales(w) -> i32x16, step(w) -> d, lows(w) -> f32x16, the sixteen m."""

    @inline
    def dot(w, x, k):
        total, minimum = _zero_f32(), _zero_f32()
        step_x, sums = x + k, x + k + k // 4
        for _ in range(k // 256):
            _prefetch_block(w, block_bytes)
            by = scales(w)
            weighted = (
                _product(values, w, 0, x) * _quarter_0(by)
                + _product(values, w, 1, x) * _quarter_1(by)
                + _product(values, w, 2, x) * _quarter_2(by)
                + _product(values, w, 3, x) * _quarter_3(by)
            )
            total = fma(_to_f32(weighted), _all(step(w) * load_f32(step_x)), total)
            minimum = fma(lows(w), load_f32x16(sums), minimum)
            w += block_bytes
            x += 256
            step_x += 32
            sums += 64
        return sum_f32(total) - sum_f32(minimum)

    @inline
    def unpack(w, q, scale, low, stride):
        by, below, d = scales(w), lows(w), step(w)
        for c in range(4):
            _store_values(q + 64 * c, values(w, c))
        for g in range(16):
            store_f32(scale + stride * g, d * np.float32(_scale_at(by, g)))
            store_f32(low + stride * g, _low_at(below, g))

    return (
        quantized_linear(dot, unpack, block_values=256, block_bytes=block_bytes, group=16),
        quantized_embed(unpack, block_values=256, block_bytes=block_bytes, group=16),
    )
