"""Choosing and finding lanes, transposition, scratch memory, on arrays in memory."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ggpy.simd import lanes
from ggpy.simd.memory import load, load_f32x16, load_i32x16, store_f32x16, store_i32x16
from ggpy.simd.target import target
from ggpy.simd.vectors import i32x16, u8x16

NAN = np.nan
A = np.array([0, 1, -1, 2, NAN, NAN, np.inf, -np.inf, 0.0, -0.0, 5, -5, 7, 7, 3, 4], np.float32)
B = np.array([1, 0, -1, 3, 1, NAN, np.inf, 3, -0.0, 0.0, -5, 5, 8, 7, 3, 5], np.float32)


def at(array: np.ndarray) -> int:
    return array.ctypes.data


@njit
def choose_floats(a, b, target):
    x, y = load_f32x16(a), load_f32x16(b)
    store_f32x16(target, lanes.where_less(x, y, x, y))
    store_f32x16(target + 64, lanes.where_equal(x, y, x, x + y))
    return lanes.lanes_less(x, y), lanes.lanes_equal(x, y)


def test_floats_compare_as_numpy_compares_them():
    out = np.zeros((2, 16), np.float32)
    less, equal = choose_floats(at(A), at(B), at(out))
    assert np.array_equal(out[0], np.where(A < B, A, B), equal_nan=True)
    assert np.array_equal(out[1], np.where(A == B, A, A + B), equal_nan=True)
    assert less == sum(1 << i for i in range(16) if A[i] < B[i])
    assert equal == sum(1 << i for i in range(16) if A[i] == B[i])


@njit
def choose_integers(a, b, target):
    x, y = load_i32x16(a), load_i32x16(b)
    store_i32x16(target, lanes.larger(x, y))
    store_i32x16(target + 64, lanes.smaller(x, y))
    return lanes.lanes_less(x, y), lanes.largest_lane(x), lanes.smallest_lane(x)


def test_integers_compare_by_sign():
    random = np.random.default_rng(0)
    a, b = random.integers(-(2**31), 2**31, (2, 16)).astype(np.int32)
    out = np.zeros((2, 16), np.int32)
    less, most, least = choose_integers(at(a), at(b), at(out))
    assert np.array_equal(out, [np.maximum(a, b), np.minimum(a, b)])
    assert less == sum(1 << i for i in range(16) if a[i] < b[i])
    assert (most, least) == (a.max(), a.min())


_load_bytes = load(u8x16)


@njit
def reduce_bytes(a):
    x = _load_bytes(a)
    return lanes.largest_lane(x), lanes.smallest_lane(x)


def test_bytes_reduce_without_sign():
    a = np.array([3, 200, 7, 255, 2, 9, 128, 127, *range(10, 18)], np.uint8)
    assert reduce_bytes(at(a)) == (255, 2)


@njit
def reduce_floats(a):
    x = load_f32x16(a)
    return lanes.largest_lane(x), lanes.smallest_lane(x)


def test_floats_reduce():
    a = np.random.default_rng(1).standard_normal(16).astype(np.float32)
    assert reduce_floats(at(a)) == (a.max(), a.min())


@njit
def first_bit(bits):
    return lanes.first_bit(bits)


@pytest.mark.parametrize("bits", [1, 2, 0x8000, 0b101000, 1 << 62, -(1 << 63)])
def test_first_bit(bits: int):
    assert first_bit(bits) == (bits & -bits).bit_length() - 1


def test_first_bit_of_none():
    assert first_bit(0) == 64


@njit
def copy_sign(a, b, target):
    store_f32x16(target, lanes.copy_sign(load_f32x16(a), load_f32x16(b)))


def test_signs_are_copied():
    out = np.zeros(16, np.float32)
    copy_sign(at(A), at(B), at(out))
    assert np.array_equal(out, np.copysign(A, B), equal_nan=True)
    assert np.array_equal(np.signbit(out), np.signbit(B))


@njit
def transpose(upper, lower, stride, target, step):
    lanes.transpose(upper, lower, stride, target, step)


@pytest.mark.parametrize(("columns", "width"), [(16, 16), (32, 32), (50, 19)])
def test_rows_become_lanes(columns: int, width: int):
    upper, lower = np.random.default_rng(2).standard_normal((2, 8, columns)).astype(np.float32)
    out = np.zeros((16, width), np.float32)
    transpose(at(upper), at(lower), 4 * columns, at(out), 4 * width)
    assert np.array_equal(out[:, :16], np.concatenate((upper, lower))[:, :16].T)
    assert not out[:, 16:].any()


_table = np.random.default_rng(3).standard_normal(32).astype(np.float32)
_look_up = lanes.look_up([float(value) for value in _table], i32x16)


@njit
def look_up(source, target):
    store_f32x16(target, _look_up(load_i32x16(source)))


@pytest.mark.skipif(target().lowering != "avx512-vnni", reason="an instruction of AVX-512")
def test_tables_are_looked_up_by_the_low_five_bits():
    out = np.zeros(16, np.float32)
    for indices in (np.arange(16), np.arange(31, 15, -1), np.arange(0, 1600, 100), np.arange(-16, 0)):
        look_up(at(indices.astype(np.int32)), at(out))
        assert np.array_equal(out, _table[indices & 31])


_room = lanes.scratch(256)


@njit
def use_scratch(source, target):
    room, other = _room(), _room()
    for i in range(4):
        store_f32x16(room + 64 * i, load_f32x16(source + 64 * i))
    for i in range(4):
        store_f32x16(other + 64 * i, load_f32x16(room + 64 * (3 - i)))
    for i in range(4):
        store_f32x16(target + 64 * i, load_f32x16(other + 64 * i))
    return room % 64 + other % 64


def test_scratch_is_aligned_and_apart():
    source = np.arange(64, dtype=np.float32).reshape(4, 16)
    out = np.zeros_like(source)
    assert use_scratch(at(source), at(out)) == 0
    assert np.array_equal(out, source[::-1])
