"""Vectors, dots, tiles and exp against NumPy, on extremes and on random values."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ggpy.kernels.exponential import exp_f32x16
from ggpy.simd.arithmetic import fma, max_f32, round_even, sum_f32, sum_i32, where_below
from ggpy.simd.dot import dot_i8i8, dot_u8i8
from ggpy.simd.matrix import float_tile, int8_tile, transpose_16x16
from ggpy.simd.memory import (
    broadcast_i8x64,
    load_f16x16,
    load_f32x16,
    load_i8x16,
    load_i8x32,
    load_i8x64,
    load_i32x8,
    load_i32x16,
    load_u8x32,
    load_u8x64,
    scatter_i8x16,
    store,
    store_f32x16,
    store_i32x16,
)
from ggpy.simd.target import LOWERINGS, target
from ggpy.simd.vectors import convert, f16x16, f32x16, i32x8

store_i32x8, widen = store(i32x8), convert(f16x16, f32x16)


@njit
def dots(acc, a, b, c, out):
    store_i32x16(out, dot_u8i8(load_i32x16(acc), load_u8x64(a), load_i8x64(b)))
    store_i32x16(out + 64, dot_i8i8(load_i32x16(acc), load_i8x64(c), load_i8x64(b)))
    store_i32x8(out + 128, dot_u8i8(load_i32x8(acc), load_u8x32(a), load_i8x32(b)))
    store_i32x8(out + 160, dot_i8i8(load_i32x8(acc), load_i8x32(c), load_i8x32(b)))


def test_the_target_has_a_known_lowering():
    assert target().lowering in LOWERINGS


@pytest.mark.parametrize("case", ["random", "largest", "smallest", "mixed"])
def test_dots_are_exact(case: str):
    """On any CPU: no saturation for unsigned values below 128 (below 256 where the CPU's own dot takes them) and |b| <= 127."""
    rng = np.random.default_rng(0)
    top = 256 if target().dots_any_u8 else 128
    a, b, c = (
        rng.integers(0, top, 64).astype(np.uint8),
        rng.integers(-127, 128, 64).astype(np.int8),
        rng.integers(-128, 128, 64).astype(np.int8),
    )
    if case != "random":
        a.fill(top - 1)
        c.fill(-128 if case == "smallest" else 127)
        b.fill(-127 if case == "smallest" else 127)
    if case == "mixed":
        b[::2] = -127
        c[::3] = -128
    acc, out = rng.integers(-(2**20), 2**20, 16).astype(np.int32), np.zeros(48, np.int32)
    dots(acc.ctypes.data, a.ctypes.data, b.ctypes.data, c.ctypes.data, out.ctypes.data)
    wide = b.astype(np.int32)
    unsigned, signed = (a.astype(np.int32) * wide).reshape(16, 4).sum(1) + acc, (c.astype(np.int32) * wide).reshape(16, 4).sum(1) + acc
    assert np.array_equal(out[:16], unsigned) and np.array_equal(out[16:32], signed)
    assert np.array_equal(out[32:40], unsigned[:8]) and np.array_equal(out[40:], signed[:8])


@njit
def exponential(x, out, n):
    for i in range(0, n, 16):
        store_f32x16(out + 4 * i, exp_f32x16(load_f32x16(x + 4 * i)))


def test_exp_is_close_everywhere():
    x = np.concatenate([np.linspace(-87, 88, 1 << 16), np.random.default_rng(0).normal(0, 3, 1 << 16)]).astype(np.float32)
    out = np.zeros_like(x)
    exponential(x.ctypes.data, out.ctypes.data, len(x))
    want = np.exp(x.astype(np.float64))
    assert (np.abs(out - want) / want).max() < 2e-7
    edge, result = np.array([-1e30, -100, 0, 88, 1000, np.nan, np.inf, -np.inf] * 2, np.float32), np.zeros(16, np.float32)
    exponential(edge.ctypes.data, result.ctypes.data, 16)
    assert result[0] < 1e-37 and result[1] < 1e-37 and result[2] == 1 and result[4] == result[3] > 1e38
    assert np.isnan(result[5:8]).all()


@njit
def arithmetic(a, b, c, limit, out, wide):
    x, y = load_f32x16(a), load_f32x16(b)
    store_f32x16(out, fma(x, y, load_f32x16(c)))
    store_f32x16(out + 64, round_even(x))
    store_f32x16(out + 128, where_below(load_i32x16(limit), load_i32x16(limit + 64), x, y))
    store_f32x16(out + 192, widen(load_f16x16(wide)))
    return sum_f32(x), max_f32(x), sum_i32(load_i32x16(limit))


def test_arithmetic():
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(16).astype(np.float32) for _ in range(3))
    a[:4] = [0.5, 1.5, -2.5, 1e9]
    limit = rng.integers(-5, 5, 32).astype(np.int32)
    half = rng.standard_normal(16).astype(np.float16)
    out = np.zeros((4, 16), np.float32)
    total, largest, whole = arithmetic(a.ctypes.data, b.ctypes.data, c.ctypes.data, limit.ctypes.data, out.ctypes.data, half.ctypes.data)
    assert np.array_equal(out[0], (a.astype(np.float64) * b + c).astype(np.float32))  # products are exact in float64
    assert np.array_equal(out[1], np.rint(a))
    assert np.array_equal(out[2], np.where(limit[:16] < limit[16:], a, b))
    assert np.array_equal(out[3], half.astype(np.float32))
    halves = a
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    assert total == halves[0] and largest == a.max() and whole == limit[:16].sum()


@njit
def moves(source, four, out, scattered):
    transpose_16x16(source, 80, out)
    store_i32x16(out + 1024, dot_u8i8(load_i32x16(out + 1024), load_u8x64(out + 1024), broadcast_i8x64(four)))
    scatter_i8x16(scattered, 12, load_i8x16(four))


def test_transpose_and_scatter():
    rng = np.random.default_rng(2)
    source, out = rng.integers(0, 2**31, (16, 20)).astype(np.int32), np.zeros((17, 16), np.int32)
    four, scattered = rng.integers(-127, 128, 16).astype(np.int8), np.zeros(60, np.int8)
    moves(source.ctypes.data, four.ctypes.data, out.ctypes.data, scattered.ctypes.data)
    assert np.array_equal(out[:16], source[:, :16].T)
    assert not out[16].any()
    assert np.array_equal(scattered.reshape(5, 12)[:4, :4], four.reshape(4, 4)) and not scattered.reshape(5, 12)[:4, 4:].any()


@pytest.mark.parametrize(("tokens", "group", "signed"), [(4, 32, False), (8, 16, False), (4, 32, True)])
def test_int8_tile(tokens: int, group: int, signed: bool):
    rng, groups = np.random.default_rng(3), 6
    k = groups * group
    w = rng.integers(-128, 128, (16, k)).astype(np.int8) if signed else rng.integers(0, 128, (16, k)).astype(np.uint8)
    x = rng.integers(-127, 128, (tokens, k)).astype(np.int8)
    scales, mins = rng.random((groups, 16), np.float32), rng.random((groups, 16), np.float32)
    shift = {32: 0, 16: 1}[group]
    x_scales = rng.random((groups >> shift, tokens), np.float32)
    each = np.repeat(x_scales, 1 << shift, axis=0)
    x_sums = np.ascontiguousarray(x.reshape(tokens, groups, group).sum(2).T * each, np.float32)
    panel = np.ascontiguousarray(w.reshape(16, k // 4, 4).transpose(1, 0, 2))
    tile_x = np.ascontiguousarray(x.reshape(tokens, k // 4, 4).transpose(1, 0, 2))
    tile, out = int8_tile(tokens, group, signed, 3), np.zeros((2, tokens, 16), np.float32)

    @njit
    def run(out, panel, scales, mins, x, x_scales, x_sums, soon):
        tile(out, panel, scales, mins, x, x_scales, shift, x_sums, groups, soon)

    addresses = [array.ctypes.data for array in (panel, scales, mins, tile_x, x_scales, x_sums)]
    run(out[0].ctypes.data, *addresses, 0)
    run(out[1].ctypes.data, *addresses, 4096)  # an address may be one that is not mapped: it is only asked for
    assert np.array_equal(out[0], out[1])
    dense = w.astype(np.float64).reshape(16, groups, group) * scales.T[:, :, None] - mins.T[:, :, None]
    values = x.astype(np.float64).reshape(tokens, groups, group) * each.T[:, :, None]
    want = values.reshape(tokens, k) @ dense.reshape(16, k).T
    assert np.allclose(out[0], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_float_tile():
    rng = np.random.default_rng(4)
    panel, x = rng.standard_normal((37, 16)).astype(np.float32), rng.standard_normal((37, 4)).astype(np.float32)
    tile, out = float_tile(4), np.zeros((4, 16), np.float32)

    @njit
    def run(out, panel, x):
        tile(out, panel, x, 37)

    run(out.ctypes.data, panel.ctypes.data, x.ctypes.data)
    assert np.allclose(out, x.T @ panel, rtol=1e-5, atol=1e-5)
