"""What the machine can do at the most, measured by the simplest kernels there are: reading memory, int8 products in registers, and, where
the CPU has AMX, bfloat16 products of tiles from the second-level cache."""

from __future__ import annotations

from ggpy.kernels.options import kernel
from ggpy.simd.arithmetic import sum_i32
from ggpy.simd.dot import dot_u8i8
from ggpy.simd.memory import (
    atomic_add,
    load_i8x32,
    load_i8x64,
    load_i32x16,
    load_i64,
    load_u8x32,
    load_u8x64,
    prefetch,
    store_i32,
    store_i64,
)
from ggpy.simd.target import target
from ggpy.simd.tiles import TILE_BYTES, TILE_ROW_BYTES, TILE_ROWS, tile_configure, tile_load, tile_multiply, tile_release, tile_store
from ggpy.simd.vectors import constant, i32x8, i32x16

STEP = 256  # bytes a round of `read` takes
AHEAD = 4096  # bytes that `read` prefetches ahead: with 8192, or without, 5 % slower
ROUNDS = 4096  # rounds of `multiply` that a thread takes at a time
PRODUCTS = 8  # independent sums in `multiply`: as many as hide the dot instruction's latency

_WIDE = target().lowering == "avx512-vnni"
_OPERATIONS = PRODUCTS * (64 if _WIDE else 32) * 2  # multiplications and additions in one round of `multiply`
_zero = constant(i32x16, 0) if _WIDE else constant(i32x8, 0)
_load_a, _load_b = (load_u8x64, load_i8x64) if _WIDE else (load_u8x32, load_i8x32)
_zero_read = constant(i32x16, 0)


@kernel
def read(args, ith, nth):
    """words: address of 64 bytes per thread for the int32 sum and, 8 bytes on, the int64 number of bytes read; number of chunks; address of
    the counter of chunks; then an address and a length in bytes per chunk.

    Threads take chunks in turn, of each whole steps of 256 bytes: one that the machine slows down takes fewer, as in inference.
    """
    a, b, c, d = _zero_read(), _zero_read(), _zero_read(), _zero_read()
    chunks, counter, done = load_i64(args + 8), load_i64(args + 16), 0
    while True:
        chunk = args + 24 + 16 * atomic_add(counter, 1)
        if chunk >= args + 24 + 16 * chunks:
            break
        begin, size = load_i64(chunk), load_i64(chunk + 8) // STEP * STEP
        for at in range(begin, begin + size, STEP):
            prefetch(at + AHEAD)
            prefetch(at + AHEAD + 64)
            prefetch(at + AHEAD + 128)
            prefetch(at + AHEAD + 192)
            a = a + load_i32x16(at)
            b = b + load_i32x16(at + 64)
            c = c + load_i32x16(at + 128)
            d = d + load_i32x16(at + 192)
        done += size
    result = load_i64(args) + 64 * ith
    store_i32(result, sum_i32(a + b + c + d))
    store_i64(result + 8, done)


@kernel
def multiply(args, ith, nth):
    """words: address of 64 bytes per thread for the int32 sum and, 8 bytes on, the int64 number of operations; address of 4096 bytes
    below 128 to multiply; rounds that all threads run together; address of the counter of rounds.

    One side stays in a register, the other comes from the first-level cache, a new one for each product: so it is in a matrix
    multiply, and nothing can be computed once for all rounds.
    """
    values = load_i64(args + 8)
    x = _load_a(values)
    a, b, c, d, e, f, g, h = _zero(), _zero(), _zero(), _zero(), _zero(), _zero(), _zero(), _zero()
    rounds, counter, done = load_i64(args + 16), load_i64(args + 24), 0
    while True:
        first = atomic_add(counter, ROUNDS)
        if first >= rounds:
            break
        last = min(first + ROUNDS, rounds)
        for i in range(first, last):
            at = values + (i & 7) * 512
            a, b = dot_u8i8(a, x, _load_b(at)), dot_u8i8(b, x, _load_b(at + 64))
            c, d = dot_u8i8(c, x, _load_b(at + 128)), dot_u8i8(d, x, _load_b(at + 192))
            e, f = dot_u8i8(e, x, _load_b(at + 256)), dot_u8i8(f, x, _load_b(at + 320))
            g, h = dot_u8i8(g, x, _load_b(at + 384)), dot_u8i8(h, x, _load_b(at + 448))
        done += last - first
    result = load_i64(args) + 64 * ith
    store_i32(result, sum_i32((a + b) + (c + d) + (e + f) + (g + h)))
    store_i64(result + 8, done * _OPERATIONS)


if target().amx:
    _load_4, _load_5, _load_6, _load_7 = (tile_load(t) for t in (4, 5, 6, 7))
    _0_4_6, _1_4_7, _2_5_6, _3_5_7 = (tile_multiply(*tiles) for tiles in ((0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7)))
    _store_0, _store_1, _store_2, _store_3 = (tile_store(t) for t in range(4))
    _TILE_OPERATIONS = 4 * 2 * TILE_ROWS * TILE_ROWS * 32  # four products of 16 by 16 sums of 32 values

    @kernel
    def multiply_tiles(args, ith, nth):
        """words: address of 64 bytes per thread, the int64 number of operations 8 bytes on; address of each thread's own operands: whole
        multiples of 4 kB of bfloat16, followed by 4 kB for the sums; bytes of them; passes over the operands that all threads run
        together; address of the counter of passes.

        Four tiles are loaded for four products, as in a matrix product, and all are more than the first-level cache holds: they come from
        the second. The values must be random: on zeros the same loop runs 1.6 times as fast, by the power it saves.
        """
        size, passes, counter, done = load_i64(args + 16), load_i64(args + 24), load_i64(args + 32), 0
        values = load_i64(args + 8) + ith * (size + 4 * TILE_BYTES)
        sums = values + size
        tile_configure(sums)
        while atomic_add(counter, 1) < passes:
            for at in range(values, sums, 4 * TILE_BYTES):
                _load_4(at, TILE_ROW_BYTES)
                _load_6(at + TILE_BYTES, TILE_ROW_BYTES)
                _0_4_6()
                _load_7(at + 2 * TILE_BYTES, TILE_ROW_BYTES)
                _1_4_7()
                _load_5(at + 3 * TILE_BYTES, TILE_ROW_BYTES)
                _2_5_6()
                _3_5_7()
            done += size // (4 * TILE_BYTES)
        _store_0(sums, TILE_ROW_BYTES)
        _store_1(sums + TILE_BYTES, TILE_ROW_BYTES)
        _store_2(sums + 2 * TILE_BYTES, TILE_ROW_BYTES)
        _store_3(sums + 3 * TILE_BYTES, TILE_ROW_BYTES)
        tile_release()
        store_i64(load_i64(args) + 64 * ith + 8, done * _TILE_OPERATIONS)
