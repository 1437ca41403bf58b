"""Products of many tokens on AMX: weights are unpacked to bfloat16 once per panel, which all tokens then pass by.

A panel is up to 128 rows of weights by up to 2048 of their values, 512 kB that stay in the second-level cache. It lies as AMX wants the
right side of a product, so that its tiles are read one after the other:

    panel        bfloat16 (rows / 16, k / 2, 16, 2)
    activations  bfloat16 (tokens / 16, k / 32, 16, 32)    k padded with zeros to a multiple of 32
    result       float32 (16 tokens, 16 rows) per tile: copied row by row to y, with what is added to it

Two tiles of activations by two of weights make four of sums: every tile that is loaded is used twice. Rows longer than a panel are
summed piece by piece; between pieces the sums lie in scratch, tile behind tile: rows of y are often a power of two apart, and tiles stored
that way fall into the same few cache lines. A sum's order is that of k alone, so neither threads nor panels change a bit.

Past the last row or token a tile holds whatever lay there: rows and tokens never mix, and what belongs to none is not copied.
"""

from __future__ import annotations

from collections.abc import Callable

from ggpy.kernels.claims import claim
from ggpy.kernels.kinds import BF16_COLUMNS, BF16_ROWS, BF16_STEP, BF16_TOKENS, BF16_UNPACKED, BF16_UNPACKED_BYTES, unpacked_stride
from ggpy.kernels.options import inline, outlined
from ggpy.simd.arithmetic import fma
from ggpy.simd.matrix import transpose_16x16
from ggpy.simd.memory import load_f32x16, load_i32x16, load_i64, load_u16, prefetch, store, store_f32x16, store_u16
from ggpy.simd.tiles import (
    CONFIG_BYTES,
    TILE_BYTES,
    TILE_ROW_BYTES,
    TILE_ROWS,
    bf16_pairs,
    tile_configure,
    tile_load,
    tile_multiply,
    tile_release,
    tile_store,
    u16x32,
)
from ggpy.simd.vectors import bitcast, constant, convert, f32x16, i32x16, u32x16

PAIR = 2 * TILE_ROWS  # rows, or tokens, of two tiles
LINE = 64

_bits, _numbers = bitcast(i32x16, u32x16), convert(u32x16, f32x16)
_byte, _one, _two, _three = (constant(u32x16, n) for n in (255, 8, 16, 24))
_zero, _store_u16x32 = constant(f32x16, 0.0), store(u16x32)

_load_0, _load_1, _load_2, _load_3 = (tile_load(t) for t in range(4))
_store_0, _store_1, _store_2, _store_3 = (tile_store(t) for t in range(4))
_load_x0, _load_x1, _load_w0, _load_w1 = (tile_load(t) for t in (4, 5, 6, 7))
_x0_w0, _x0_w1, _x1_w0, _x1_w1 = tile_multiply(0, 4, 6), tile_multiply(1, 4, 7), tile_multiply(2, 5, 6), tile_multiply(3, 5, 7)


def quantized_filler(fill_panel: Callable, *, block_values: int, block_bytes: int, group: int) -> Callable:
    """fill(w, row_bytes, first, count, height, scratch, panel) for a quantized format.

    `fill_panel` unpacks sixteen rows to unsigned integers (count / 4, 16, 4) and to scales and mins (groups, 16); here they become
    bfloat16: each value rounded once to float32 and once, to nearest even, to bfloat16.
    """
    unpacked_bytes, scale_bytes = TILE_ROWS * unpacked_stride(BF16_UNPACKED), 64 * (BF16_UNPACKED // group)

    @inline
    def widen(q, scales, mins, count, panel):
        for g in range(count // group):
            scale, low = load_f32x16(scales + 64 * g), _zero() - load_f32x16(mins + 64 * g)
            for i in range(group // 4):
                four = _bits(load_i32x16(q + 64 * i))
                a, b = fma(_numbers(four & _byte()), scale, low), fma(_numbers((four >> _one()) & _byte()), scale, low)
                c, d = fma(_numbers((four >> _two()) & _byte()), scale, low), fma(_numbers(four >> _three()), scale, low)
                _store_u16x32(panel + 128 * i, bf16_pairs(a, b))
                _store_u16x32(panel + 128 * i + 64, bf16_pairs(c, d))
            q += 16 * group
            panel += 32 * group

    @outlined
    def fill(w, row_bytes, first, count, height, scratch, panel):
        q = scratch + unpacked_bytes
        scales = q + unpacked_bytes
        for at in range(0, count, BF16_UNPACKED):
            values = min(BF16_UNPACKED, count - at)
            blocks = w + (first + at) // block_values * block_bytes
            for r in range(height):  # of the sixteen rows that come next
                for line in range(0, values // block_values * block_bytes, LINE):
                    prefetch(blocks + (TILE_ROWS + r) * row_bytes + line)
            fill_panel(blocks, row_bytes, values, height, scratch, q, scales, scales + scale_bytes)
            widen(q, scales, scales + scale_bytes, values, panel + 32 * at)

    return fill


@outlined
def fill_with_bf16(w, row_bytes, first, count, height, scratch, panel):
    """`fill` (see `bf16_product`) for weights that are bfloat16 already."""
    for at in range(0, count, BF16_STEP):
        source = w + 2 * (first + at)
        if height == TILE_ROWS and at + BF16_STEP <= count:
            transpose_16x16(source, row_bytes, panel + 32 * at)
        else:
            for i in range(0, TILE_BYTES, 64):
                store_f32x16(scratch + i, _zero())
            for r in range(height):
                for i in range(min(BF16_STEP, count - at)):
                    store_u16(scratch + TILE_ROW_BYTES * r + 2 * i, load_u16(source + r * row_bytes + 2 * i))
            transpose_16x16(scratch, TILE_ROW_BYTES, panel + 32 * at)


@outlined
def _multiply_pairs(sums, stride, tile_bytes, x, next_x, w, next_w, steps, out):
    """Four tiles at `sums`, rows `stride` and tiles `tile_bytes` apart, plus two tiles of tokens by two of rows, to `out`."""
    _load_0(sums, stride)
    _load_1(sums + tile_bytes, stride)
    _load_2(sums + 2 * tile_bytes, stride)
    _load_3(sums + 3 * tile_bytes, stride)
    for s in range(0, steps * TILE_BYTES, TILE_BYTES):
        _load_x0(x + s, TILE_ROW_BYTES)
        _load_w0(w + s, TILE_ROW_BYTES)
        _x0_w0()
        _load_w1(next_w + s, TILE_ROW_BYTES)
        _x0_w1()
        _load_x1(next_x + s, TILE_ROW_BYTES)
        _x1_w0()
        _x1_w1()
    _store_0(out, TILE_ROW_BYTES)
    _store_1(out + TILE_BYTES, TILE_ROW_BYTES)
    _store_2(out + 2 * TILE_BYTES, TILE_ROW_BYTES)
    _store_3(out + 3 * TILE_BYTES, TILE_ROW_BYTES)


@inline
def _piece(k):
    """Values of the pieces that rows of k values are cut into: equal but for the last, and whole blocks of any format."""
    pieces = (k + BF16_COLUMNS - 1) // BF16_COLUMNS
    return min((k + pieces - 1) // pieces + 255 & ~255, BF16_COLUMNS)


def bf16_product(fill: Callable, store_tile: Callable) -> Callable:
    """product(args, ith, crew, n_tokens): `linear` (words as there) for activations in bfloat16.

    fill(w, row_bytes, first, count, height, scratch, panel): values first … first + count of `height` ≤ 16 rows at `w`, padded with zeros
    to a multiple of 32, as a panel's sixteen rows. store_tile(args, sums, row, height, token, count): a tile of sums to y.
    """

    @outlined
    def store_tiles(args, sums, row, rows, token, last_token):
        for t in range(4):
            r, x = row + t % 2 * TILE_ROWS, token + t // 2 * TILE_ROWS
            if r < rows and x < last_token:
                store_tile(args, sums + t * TILE_BYTES, r, min(TILE_ROWS, rows - r), x, min(TILE_ROWS, last_token - x))

    @inline
    def multiply_panel(args, x, panel, first_row, last_row, first_token, last_token, at, count, zeros, out, sums):
        """Values at … at + count of all tokens by those of the panel's rows; after the last of them, to y."""
        k = load_i64(args + 24)
        steps = (count + BF16_STEP - 1) // BF16_STEP
        x_tile, w_tile = (k + BF16_STEP - 1) // BF16_STEP * TILE_BYTES, steps * TILE_BYTES
        is_last = at + count == k
        for token in range(first_token, last_token, PAIR):
            xt = x + token // TILE_ROWS * x_tile + at // BF16_STEP * TILE_BYTES
            next_xt = xt + x_tile if token + TILE_ROWS < last_token else xt
            for row in range(first_row, last_row, PAIR):
                wt = panel + (row - first_row) // TILE_ROWS * w_tile
                to = out if is_last else sums
                if at == 0:
                    _multiply_pairs(zeros, 0, 0, xt, next_xt, wt, wt + w_tile, steps, to)
                else:
                    _multiply_pairs(sums, TILE_ROW_BYTES, TILE_BYTES, xt, next_xt, wt, wt + w_tile, steps, to)
                if is_last:
                    store_tiles(args, out, row, last_row, token, last_token)
                sums += 4 * TILE_BYTES

    @inline
    def product(args, ith, crew, n_tokens):
        w, row_bytes, rows, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        x, counter = load_i64(args + 32), load_i64(args + 64)
        zeros = load_i64(args + 72) + ith * load_i64(args + 80)
        tile_configure(zeros)
        store_f32x16(zeros, _zero())
        out = zeros + CONFIG_BYTES
        scratch = out + 4 * TILE_BYTES
        panel = scratch + BF16_UNPACKED_BYTES
        piece, pairs = _piece(k), (rows + PAIR - 1) // PAIR
        sums = panel + 2 * BF16_ROWS * ((piece + BF16_STEP - 1) & -BF16_STEP)
        together = n_tokens if piece >= k else BF16_TOKENS
        while True:
            first, last = claim(counter, crew, pairs, 1, BF16_ROWS // PAIR)
            if first == last:
                break
            first_row, last_row = first * PAIR, min(last * PAIR, rows)
            for first_token in range(0, n_tokens, together):
                last_token = min(first_token + together, n_tokens)
                for at in range(0, k, piece):
                    count = min(piece, k - at)
                    for row in range(first_row, last_row, TILE_ROWS):
                        to = panel + (row - first_row) * 2 * ((count + BF16_STEP - 1) & -BF16_STEP)
                        fill(w + row * row_bytes, row_bytes, at, count, min(TILE_ROWS, last_row - row), scratch, to)
                    multiply_panel(args, x, panel, first_row, last_row, first_token, last_token, at, count, zeros, out, sums)
        tile_release()

    return product
