"""y = W x for weights as they lie in the file: few tokens by fused dots, many by unpacking sixteen rows at a time into a panel, and what is
between by unpacking rows only (`token_lanes.py`).

The factories take a block format's own functions, all inlined:

    dots(v, w, x, k) -> two float32    the rows at `v` and `w` with one token's activations at `x`
    dot_tokens(w, x, y, z, u, k)       four float32: the row at `w` with the activations of four tokens; each as `dots` gives it
    unpack(w, q, scales, mins, step)   one block: its integers to `q`; each group's scale and min, `step` bytes apart:
                                       value = scale * q - min
    values(w, i) -> f32x16             (float formats) sixteen values of a row, from the i-th on

Where the CPU has AMX, BF16_FROM tokens and more are multiplied in bfloat16 (`tiled_bf16.py`), except by weights in F32 and F16.

Words: 0 weights, 1 bytes per row, 2 rows, 3 k, 4 activations, 5 y float32 (tokens, rows), 6 bytes per token in y, 7 address of the token
count, 8 address of the claim counter, 9 scratch, 10 scratch bytes per thread (`kinds.scratch_bytes`), 11 float32 rows that are added to y,
or 0, 12 bytes per token in them: as in y for a residual, 0 for a bias, 13 address of the threads' desks, or 0 where they do not help
each other (`claims.py`), 14 bytes from one thread's own activations to the next, or 0 where all read the same.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.activations import AMX, TILE
from ggpy.kernels.claims import claim, clear, deliver, give_up, hold, is_open, threads
from ggpy.kernels.desks import DESK_BYTES, PIECE_BYTES
from ggpy.kernels.kinds import BF16_FROM, LANES_UP_TO, TILED_FROM, unpacked_stride
from ggpy.kernels.options import Kernel, inline, kernel
from ggpy.kernels.tiled_bf16 import bf16_product, quantized_filler
from ggpy.kernels.token_lanes import LANES, token_lanes
from ggpy.kernels.token_lanes import one_by_one as unpack_one_by_one
from ggpy.simd.arithmetic import fma, sum_f32
from ggpy.simd.matrix import float_tile, int8_tile, transpose_16x16
from ggpy.simd.memory import LINE, load_f32, load_f32x16, load_i8, load_i64, load_u8, prefetch, store_f32, store_f32x16
from ggpy.simd.vectors import constant, f32x16

CHUNK = 32  # rows of a panel pair: what a thread takes at a time when there are many tokens
CHUNK_BYTES, LEAST_ROWS = 12 << 10, 4  # with few tokens it takes at least as many bytes of weights, about a microsecond's worth, and rows
PANEL = 16
AHEAD = 4096  # bytes that unpacking prefetches ahead
ROWWISE_FROM = 3  # tokens from which a row is unpacked once for four of them, rather than two rows for one

_zero, _stride = constant(f32x16, 0.0), inline(unpacked_stride)


@inline
def _dots(args, ith, crew, dots, dot_tokens, n_tokens, token_bytes):
    """Few tokens: every two rows with every token, or every row with four. Sums go to scratch first: by then another thread may have
    stored them.

    Two rows are as far apart as the piece allows, so that the weights are read as two long streams, which the CPU's own prefetching
    follows; neighbouring rows would come at half the speed.
    """
    w, row_bytes, rows, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    x, counter, desks = load_i64(args + 32), load_i64(args + 64), load_i64(args + 104)
    sums = load_i64(args + 72) + ith * load_i64(args + 80)
    x += ith * load_i64(args + 112)
    desk = desks + ith * DESK_BYTES if desks != 0 else 0
    pairs, most = (rows + 1) // 2, PIECE_BYTES // 8 // n_tokens
    least = min(max(LEAST_ROWS, CHUNK_BYTES // row_bytes) // 2, most)
    while True:
        first, last, ticket, holder = hold(desk, counter, crew, pairs, least, most)
        if first == last:
            return
        first, last = 2 * first, min(2 * last, rows)
        in_pairs = n_tokens < ROWWISE_FROM
        row, stride = first, 4 * (last - first)
        end = first + (last - first + 1) // 2 if in_pairs else last
        while row < end and (holder == desk or is_open(holder, ticket)):
            to = sums + 4 * (row - first)
            if in_pairs:
                other = min(end + row - first, last - 1)
                for token in range(n_tokens):
                    one, two = dots(w + row * row_bytes, w + other * row_bytes, x + token * token_bytes, k)
                    store_f32(to + token * stride + 4 * (other - row), two)
                    store_f32(to + token * stride, one)
            else:
                for token in range(0, n_tokens, 4):
                    b, c, d = min(token + 1, n_tokens - 1), min(token + 2, n_tokens - 1), min(token + 3, n_tokens - 1)
                    xs = x + token * token_bytes, x + b * token_bytes, x + c * token_bytes, x + d * token_bytes
                    first_sum, second, third, fourth = dot_tokens(w + row * row_bytes, xs[0], xs[1], xs[2], xs[3], k)
                    store_f32(to + d * stride, fourth)
                    store_f32(to + c * stride, third)
                    store_f32(to + b * stride, second)
                    store_f32(to + token * stride, first_sum)
            row += 1
        if row == end and deliver(holder, ticket):
            for token in range(n_tokens):
                _store_rows(args, sums + 4 * token * (last - first), first, last - first, token)
            clear(desk, holder, ticket)
        else:
            give_up(desk, holder, ticket)
        if holder != desk:
            return


@inline
def _store_rows(args, sums, row, height, token):
    """Write one token's sums of `height` rows to y."""
    y, added = load_i64(args + 40) + token * load_i64(args + 48) + 4 * row, load_i64(args + 88)
    whole = height // 16 * 16
    if added == 0:
        for r in range(0, whole, 16):
            store_f32x16(y + 4 * r, load_f32x16(sums + 4 * r))
        for r in range(whole, height):
            store_f32(y + 4 * r, load_f32(sums + 4 * r))
        return
    added += token * load_i64(args + 96) + 4 * row
    for r in range(0, whole, 16):
        store_f32x16(y + 4 * r, load_f32x16(sums + 4 * r) + load_f32x16(added + 4 * r))
    for r in range(whole, height):
        store_f32(y + 4 * r, load_f32(sums + 4 * r) + load_f32(added + 4 * r))


@inline
def _store_tile(args, sums, row, height, token, count):
    """Write `count` tokens by `height` rows of the tile at `sums` to y."""
    for t in range(count):
        _store_rows(args, sums + 64 * t, row, height, token + t)


def one_by_one(dot):
    """(dots, dot_tokens) of a format that gains nothing from taking rows or tokens together: dot(w, x, k) -> float32."""

    @inline
    def dots(v, w, x, k):
        return dot(v, x, k), dot(w, x, k)

    @inline
    def dot_tokens(w, x, y, z, u, k):
        return dot(w, x, k), dot(w, y, k), dot(w, z, k), dot(w, u, k)

    return dots, dot_tokens


def quantized_linear(dots, dot_tokens, unpack, *, block_values: int, block_bytes: int, group: int, signed: bool = False,
                     unpack_blocks=None) -> Kernel:  # fmt: skip
    """The kernel of a quantized format; `group` values share a scale and a min in `unpack`. unpack_blocks: as in `token_lanes.py`."""
    lines = -(-PANEL * group * block_bytes // (block_values * LINE))  # of cache, that a panel's weights take for every group
    tile = int8_tile(TILE, group, signed, lines)
    scale_shift = {32: 0, 16: 1}[group]
    sums_at = {32: 8, 16: 4}[group]  # activations' sums of 32 start at k + k / 8, those of 16 at k + k / 4

    @inline
    def fill_panel(w, row_bytes, k, height, rows, panel, scales, mins):
        """Unpack `height` rows one after the other to `rows`, then turn them so that a panel vector holds all sixteen."""
        stride = _stride(k)
        for r in range(height):
            block, q = w + r * row_bytes, rows + r * stride
            low, high = scales + 4 * r, mins + 4 * r
            for at in range(k // block_values):
                if at * block_bytes % LINE < block_bytes:
                    for line in range(0, block_bytes, LINE):
                        prefetch(block + AHEAD + line)
                unpack(block, q, low, high, 64)
                block += block_bytes
                q += block_values
                low += 64 * (block_values // group)
                high += 64 * (block_values // group)
        for i in range(0, k, 64):
            transpose_16x16(rows + i, stride, panel + 16 * i)
        for r in range(height, PANEL):
            for g in range(k // group):
                store_f32(scales + 64 * g + 4 * r, np.float32(0))
                store_f32(mins + 64 * g + 4 * r, np.float32(0))

    @inline
    def tiles(args, ith, crew, n_tokens, token_bytes):
        w, row_bytes, rows, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        x, counter = load_i64(args + 32), load_i64(args + 64)
        stride = (k + 63) // 64 * 64
        unpacked = load_i64(args + 72) + ith * load_i64(args + 80)
        sums = unpacked + PANEL * _stride(k)
        panels = sums + 64 * TILE
        panel_bytes = 16 * stride + 2 * (64 * (k // group))
        while True:
            first, last = claim(counter, crew, rows, CHUNK, CHUNK)
            if first == last:
                return
            for p in range(CHUNK // PANEL):
                row, panel = first + p * PANEL, panels + p * panel_bytes
                if row < rows:
                    scales = panel + 16 * stride
                    mins = scales + 64 * (k // group)
                    fill_panel(w + row * row_bytes, row_bytes, k, min(PANEL, rows - row), unpacked, panel, scales, mins)
            following = first + threads(crew) * CHUNK  # what this thread takes next, if all are equally fast
            for token in range(0, n_tokens, TILE):
                xt = x + token * token_bytes
                x_scales = xt + k * TILE
                x_sums = x_scales + k * TILE // sums_at
                for p in range(CHUNK // PANEL):
                    row, panel = first + p * PANEL, panels + p * panel_bytes
                    if row < rows:
                        scales = panel + 16 * stride
                        mins = scales + 64 * (k // group)
                        soon = w + (following + p * PANEL) * row_bytes if token == 0 and following < rows else 0
                        tile(sums, panel, scales, mins, xt, x_scales, scale_shift, x_sums, k // group, soon)
                        _store_tile(args, sums, row, min(PANEL, rows - row), token, min(TILE, n_tokens - token))

    unpack_blocks = unpack_blocks or unpack_one_by_one(unpack, block_values=block_values, block_bytes=block_bytes, group=group)
    lanes = token_lanes(unpack_blocks, block_values=block_values, block_bytes=block_bytes, group=group, signed=signed)

    @kernel
    def linear(args, ith, crew):
        n_tokens, k = load_i64(load_i64(args + 56)), load_i64(args + 24)
        if n_tokens < TILED_FROM:
            _dots(args, ith, crew, dots, dot_tokens, n_tokens, k + k // 2)
        elif LANES and n_tokens <= LANES_UP_TO:
            lanes(args, ith, crew, n_tokens, k + k // 2)
        else:
            tiles(args, ith, crew, n_tokens, k + k // 2)

    if not AMX:
        return linear
    assert LANES and not signed  # CPUs with AMX have the registers, and dots that take any unsigned byte
    filler = quantized_filler(fill_panel, block_values=block_values, block_bytes=block_bytes, group=group)
    product = bf16_product(filler, _store_tile)

    @kernel
    def linear_with_amx(args, ith, crew):
        n_tokens, k = load_i64(load_i64(args + 56)), load_i64(args + 24)
        if n_tokens < TILED_FROM:
            _dots(args, ith, crew, dots, dot_tokens, n_tokens, k + k // 2)
        elif n_tokens < BF16_FROM:
            lanes(args, ith, crew, n_tokens, k + k // 2)
        else:
            product(args, ith, crew, n_tokens)

    return linear_with_amx


def quantized_embed(unpack, *, block_values: int, block_bytes: int, group: int, signed: bool = False) -> Kernel:
    """Rows of the token embedding as float32. Words: weights, bytes per row, k, ids int64, out float32 (tokens, k), address of the count,
    scratch of 2 * block_values + 8 * block_values / group bytes per thread, scratch bytes per thread, address of the claim counter."""
    groups = block_values // group

    @kernel
    def embed(args, ith, crew):
        w, row_bytes, k, ids = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        out, n_tokens = load_i64(args + 32), load_i64(load_i64(args + 40))
        q = load_i64(args + 48) + ith * load_i64(args + 56)
        scales = q + block_values
        mins = scales + 4 * groups
        while True:
            token, last = claim(load_i64(args + 64), crew, n_tokens, 1, 1)
            if token == last:
                return
            block, y = w + load_i64(ids + 8 * token) * row_bytes, out + 4 * k * token
            for _ in range(k // block_values):
                unpack(block, q, scales, mins, 4)
                for i in range(block_values):
                    scale, low = load_f32(scales + 4 * (i // group)), load_f32(mins + 4 * (i // group))
                    value = np.float32(load_i8(q + i)) if signed else np.float32(load_u8(q + i))
                    store_f32(y + 4 * i, scale * value - low)
                block += block_bytes
                y += 4 * block_values

    return embed


def float_linear(values, one, filler=None) -> tuple[Kernel, Kernel]:
    """(linear, embed) of a float format: `values(w, i)` gives sixteen, `one(w, i)` a single value of a row.

    filler: as `tiled_bf16.bf16_product` takes it, for weights that lose nothing in bfloat16.
    """
    tile = float_tile(TILE)

    @inline
    def dot(w, x, k):
        a, b, c, d = _zero(), _zero(), _zero(), _zero()
        whole = k // 64 * 64
        for i in range(0, whole, 64):
            a = fma(values(w, i), load_f32x16(x + 4 * i), a)
            b = fma(values(w, i + 16), load_f32x16(x + 4 * i + 64), b)
            c = fma(values(w, i + 32), load_f32x16(x + 4 * i + 128), c)
            d = fma(values(w, i + 48), load_f32x16(x + 4 * i + 192), d)
        for i in range(whole, k // 16 * 16, 16):
            a = fma(values(w, i), load_f32x16(x + 4 * i), a)
        rest = np.float32(0)
        for i in range(k // 16 * 16, k):
            rest += one(w, i) * load_f32(x + 4 * i)
        return sum_f32((a + b) + (c + d)) + rest

    dots, dot_tokens = one_by_one(dot)

    @inline
    def fill_panel(w, row_bytes, k, height, rows, panel):
        stride = (k + 15) // 16 * 64
        for r in range(height):
            for i in range(0, k // 16 * 16, 16):
                store_f32x16(rows + r * stride + 4 * i, values(w + r * row_bytes, i))
            for i in range(k // 16 * 16, k):
                store_f32(rows + r * stride + 4 * i, one(w + r * row_bytes, i))
        for i in range(0, stride, 64):
            transpose_16x16(rows + i, stride, panel + 16 * i)

    @inline
    def tiles(args, ith, crew, n_tokens):
        w, row_bytes, rows, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        x, counter = load_i64(args + 32), load_i64(args + 64)
        unpacked = load_i64(args + 72) + ith * load_i64(args + 80)
        sums = unpacked + 16 * ((k + 15) // 16 * 64)
        panel = sums + 64 * TILE
        while True:
            first, last = claim(counter, crew, rows, PANEL, PANEL)
            if first == last:
                return
            height = last - first
            fill_panel(w + first * row_bytes, row_bytes, k, height, unpacked, panel)
            for token in range(0, n_tokens, TILE):
                tile(sums, panel, x + token * 4 * k, k)
                _store_tile(args, sums, first, height, token, min(TILE, n_tokens - token))

    @kernel
    def linear(args, ith, crew):
        n_tokens, k = load_i64(load_i64(args + 56)), load_i64(args + 24)
        if n_tokens < TILED_FROM:
            _dots(args, ith, crew, dots, dot_tokens, n_tokens, 4 * k)
        else:
            tiles(args, ith, crew, n_tokens)

    @kernel
    def embed(args, ith, crew):
        w, row_bytes, k, ids = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        out, n_tokens = load_i64(args + 32), load_i64(load_i64(args + 40))
        while True:
            token, last = claim(load_i64(args + 64), crew, n_tokens, 1, 1)
            if token == last:
                return
            row, y = w + load_i64(ids + 8 * token) * row_bytes, out + 4 * k * token
            for i in range(0, k // 16 * 16, 16):
                store_f32x16(y + 4 * i, values(row, i))
            for i in range(k // 16 * 16, k):
                store_f32(y + 4 * i, one(row, i))

    if not AMX or filler is None:
        return linear, embed
    product = bf16_product(filler, _store_tile)

    @kernel
    def linear_with_amx(args, ith, crew):
        n_tokens, k = load_i64(load_i64(args + 56)), load_i64(args + 24)
        if n_tokens < TILED_FROM:
            _dots(args, ith, crew, dots, dot_tokens, n_tokens, 4 * k)
        elif n_tokens < BF16_FROM:
            tiles(args, ith, crew, n_tokens)
        else:
            product(args, ith, crew, n_tokens)

    return linear_with_amx, embed
