"""Bit fields, weighted dots, halves and gathers of float16 against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core import types

from ggpy.simd import bits
from ggpy.simd.arithmetic import sum_halves
from ggpy.simd.memory import (
    gather_f16x16,
    load,
    load_f16_pairs,
    load_f32x16,
    load_i8x64,
    load_i32x16,
    load_u8x64,
    scatter,
    store,
    store_f32x16,
    store_i32x16,
    store_u8x32,
    store_u8x64,
)
from ggpy.simd.target import target
from ggpy.simd.vectors import Vector, f32x4, i16x32, i32x16, u8x64
from ggpy.simd.weighted import dot_i16, weighted_dot

EVERY_FIELD = [(shift, width, to) for width in (1, 2, 4) for shift in range(0, 9 - width, width) for to in range(0, 9 - width, width)]
load_i16x32, store_f32x4 = load(i16x32), store(f32x4)


def at(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("start", range(0, len(EVERY_FIELD), 8))
def test_bit_fields_of_every_shift_width_and_place(start: int):
    fields = (EVERY_FIELD[start:] + EVERY_FIELD)[:8]
    take = bits.bit_fields(u8x64, fields)

    @njit
    def run(source, out):
        store_u8x64(out, take(load_u8x64(source)))

    for first in range(0, 256, 64):
        source, out = np.arange(first, first + 64, dtype=np.uint8), np.zeros(64, np.uint8)
        run(at(source), at(out))
        want = [((int(v) >> s) & ((1 << w) - 1)) << t for v, (s, w, t) in zip(source, np.repeat(fields, 8, axis=0), strict=True)]
        assert out.tolist() == want


@njit
def spread(source, value, out):
    words = load_u8x64(source)
    store_u8x64(out, words)
    store_u8x32(out, bits.spread_bits_32(types.uint32(0x80000001), value))
    store_u8x64(out + 64, bits.spread_bits_64(types.uint64(0x8000000100000003), value))


def test_bits_spread_over_lanes():
    out = np.zeros(128, np.uint8)
    spread(at(out), np.uint8(16), at(out))
    assert np.flatnonzero(out[:32]).tolist() == [0, 31] and set(out[:32]) == {0, 16}
    assert np.flatnonzero(out[64:]).tolist() == [0, 1, 32, 63] and set(out[64:]) == {0, 16}


@pytest.mark.parametrize(
    ("words", "least", "largest"), [(16, 0, 63), (32, 0, 63), (64, 0, 63), (32, 0, 127), (16, -127, 127), (16, 0, 255)]
)
def test_weighted_dots_are_exact_on_extremes(words: int, least: int, largest: int):
    """The largest values that are allowed with activations of ±127 and weights of any int8: what super-blocks hold. Which lane gets what is
    left to the CPU."""
    if largest > 127 and not target().dots_any_u8:
        pytest.skip("the CPU's dot takes bytes below 128")
    lanes, signed = [(7 * i + 3) % words for i in range(16)], least < 0
    vector, load_values = Vector("i16", words), load_i8x64 if signed else load_u8x64
    weighted, load_words = weighted_dot(vector, lanes, largest=largest, signed=signed), load(vector)

    @njit
    def run(acc, q, x, weights, out):
        sums = weighted(
            load_i32x16(acc), load_values(q), load_i8x64(x), load_values(q + 64), load_i8x64(x + 64), load_words(weights)
        )  # fmt: skip
        store_i32x16(out, sums)

    rng = np.random.default_rng(words)
    for values in (rng.integers(least, largest + 1, 128), np.full(128, largest), np.full(128, least)):
        for sign in (1, -1):
            q, x = values.astype(np.int64), (sign * np.where(rng.random(128) < 0.9, 127, -127)).astype(np.int8)
            acc, out = rng.integers(-1000, 1000, 16, dtype=np.int32), np.zeros(16, np.int32)
            weights = rng.choice([-128, -1, 0, 1, 63, 127], words).astype(np.int16)
            stored = q.astype(np.int8 if signed else np.uint8)
            run(at(acc), at(stored), at(x), at(weights), at(out))
            products = (q * x).reshape(16, 8).sum(1) * weights[lanes]
            assert out.astype(np.int64).sum() == acc.astype(np.int64).sum() + products.sum()


@njit
def words_dot(a, b, out):
    store_i32x16(out, dot_i16(load_i16x32(a), load_i16x32(b)))


def test_dots_of_int16_pairs_are_exact():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-32767, 32768, 32).astype(np.int16) for _ in range(2))
    out = np.zeros(16, np.int32)
    words_dot(at(a), at(b), at(out))
    assert np.array_equal(out, (a.astype(np.int64) * b).reshape(16, 2).sum(1))


@njit
def halves(a, out):
    store_f32x16(out, sum_halves(load_f32x16(a)))


def test_halves_are_summed_apart():
    a, out = np.random.default_rng(2).standard_normal(16).astype(np.float32), np.zeros(16, np.float32)
    halves(at(a), at(out))
    assert np.allclose(out[[0, 8]], a.reshape(2, 8).sum(1), rtol=1e-6)


@njit
def gathers(source, stride, pairs, all_pairs):
    store_f32x4(pairs, load_f16_pairs(source, source + stride))
    store_f32x16(all_pairs, gather_f16x16(source, stride))


def test_float16_pairs_are_gathered_from_odd_places():
    values = np.array([[1.5, -2.0], [np.inf, 6.1e-5], [6e-8, -0.0], [65504, 0.1], [np.nan, 1], [2, 3], [4, 5], [6, 7]], np.float16)
    data = np.zeros(8 * 18 + 1, np.uint8)
    for i, pair in enumerate(values):
        data[1 + 18 * i : 5 + 18 * i] = pair.view(np.uint8)
    two, eight = np.zeros(4, np.float32), np.zeros(16, np.float32)
    gathers(at(data) + 1, 18, at(two), at(eight))
    assert np.array_equal(two, values[:2].reshape(-1).astype(np.float32))
    assert np.array_equal(eight, values.reshape(-1).astype(np.float32), equal_nan=True)


def test_lanes_are_scattered():
    put = scatter(i32x16)

    @njit
    def run(source, out):
        put(out, 12, load_i32x16(source))

    source, out = np.arange(1, 17, dtype=np.int32), np.zeros(48, np.int32)
    run(at(source), at(out))
    assert np.array_equal(out[::3], source) and not out[1::3].any() and not out[2::3].any()
