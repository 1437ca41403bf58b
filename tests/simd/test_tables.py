"""Table look-ups, fields of seven bits, parities and gathers against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ggpy.simd.arithmetic import f16_from_bits
from ggpy.simd.bits import with_parity
from ggpy.simd.memory import (
    gather,
    load,
    load_f16,
    load_i64,
    load_u8x16,
    load_u8x32,
    load_u8x64,
    store,
    store_f32,
    store_u8x32,
    store_u8x64,
)
from ggpy.simd.tables import byte_table, grid, replace_where, seven_bits
from ggpy.simd.vectors import Vector, i8x64, u8x16, u8x32, u8x64, u16x32, u32x8

u8x8 = Vector("u8", 8)
load_u8x8, load_u16x32, load_u32x8, store_i8x64, store_u8x8 = load(u8x8), load(u16x32), load(u32x8), store(i8x64), store(u8x8)


def at(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("entries", [list(range(3, 243, 15)), [-127, -128, *range(-6, 7), 127]], ids=["unsigned", "signed"])
def test_a_byte_table_gives_every_entry(entries: list[int]):
    whole, half, quarter = (byte_table(entries, vector) for vector in (u8x64, u8x32, u8x16))
    store_64, store_32, store_16 = (store(Vector("i8" if min(entries) < 0 else "u8", n)) for n in (64, 32, 16))

    @njit
    def run(source, out):
        store_64(out, whole(load_u8x64(source)))
        store_32(out + 64, half(load_u8x32(source)))
        store_16(out + 96, quarter(load_u8x16(source)))

    source, out = np.random.default_rng(0).permutation(np.arange(64, dtype=np.uint8) % 16), np.zeros(112, np.int8)
    run(at(source), at(out))
    want = np.array(entries).astype(np.int8)[source]
    assert np.array_equal(out, np.concatenate([want, want[:32], want[:16]]))


@pytest.mark.parametrize(
    ("n", "bits", "levels"), [(64, 2, [1, 9, 17]), (256, 4, [2, 3, 5, 7, 11, 13, 17, 19]), (2048, 2, [0, 255, 3, 128])]
)
def test_a_grid_gives_the_values_of_every_entry(n: int, bits: int, levels: list[int]):
    rng, per_entry = np.random.default_rng(n), 16 // bits
    fields = rng.integers(0, len(levels), (n, per_entry), dtype=np.uint16)
    entries = np.bitwise_or.reduce(fields << np.arange(0, 16, bits, dtype=np.uint16), axis=1)
    look_up, take_first, *others = grid(entries, levels, bits)
    take_last, last = others[-1], 64 * len(others)

    @njit
    def run(indices, out):
        found = look_up(load_u16x32(indices))
        store_u8x64(out, take_first(found))
        store_u8x64(out + last, take_last(found))

    for indices in rng.permutation(n).astype(np.uint16).reshape(-1, 32):
        out = np.zeros(32 * per_entry, np.uint8)
        run(at(indices), at(out))
        want = np.array(levels, np.uint8)[fields[indices]].ravel()
        assert np.array_equal(out[:64], want[:64]) and np.array_equal(out[-64:], want[-64:])


def test_lanes_are_replaced_where_their_bit_is_set():
    where = replace_where(u8x64)

    @njit
    def run(bits, a, b, out):
        store_u8x64(out, where(load_u8x8(bits), load_u8x64(a), load_u8x64(b)))

    rng = np.random.default_rng(1)
    bits, a, b, out = (
        rng.integers(0, 256, 8, np.uint8),
        rng.integers(0, 256, 64, np.uint8),
        rng.integers(0, 256, 64, np.uint8),
        np.zeros(64, np.uint8),
    )
    run(at(bits), at(a), at(b), at(out))
    assert np.array_equal(out, np.where(np.unpackbits(bits, bitorder="little"), a, b))


def test_seven_bit_fields_and_their_parity():
    parity = with_parity(u8x32)

    @njit
    def run(source, out):
        fields = seven_bits(load_u32x8(source))
        store_u8x32(out, fields)
        store_u8x32(out + 32, parity(fields))

    for packed in np.random.default_rng(2).integers(0, 1 << 32, (8, 8), np.uint32):
        out = np.zeros(64, np.uint8)
        run(at(packed), at(out))
        fields = (packed[:, None] >> np.arange(0, 28, 7, dtype=np.uint32) & 127).ravel().astype(np.uint8)
        assert np.array_equal(out[:32], fields)
        odd = np.unpackbits(fields[:, None], axis=1).sum(1) % 2
        assert np.array_equal(out[32:], fields | odd << 7)


def test_bytes_come_from_places_apart_and_halves_from_their_bits():
    eight = gather(u8x8)

    @njit
    def run(source, out):
        store_u8x8(out, eight(source, 17))
        store_f32(out + 8, f16_from_bits(load_i64(source)))
        store_f32(out + 12, load_f16(source))

    source, out = np.random.default_rng(3).integers(0, 120, 128, np.uint8), np.zeros(16, np.uint8)
    run(at(source), at(out))
    assert np.array_equal(out[:8], source[: 8 * 17 : 17])
    assert out[8:12].tobytes() == out[12:].tobytes() and out[8:12].any()
