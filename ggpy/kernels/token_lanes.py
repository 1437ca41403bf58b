"""y = W x for a handful of tokens, one a lane: rows are unpacked a piece at a time, right before they are multiplied, and never turned.

Turning sixteen rows into a panel costs as much as multiplying it with eight tokens; many tokens pay for it, few do not. Sums are those of
`linear.py`'s tiles to the bit. Lanes are those of one 32-byte register, as CPUs with AVX-512 have them for their int8 dot.
"""

from __future__ import annotations

from ggpy.kernels.activations import TILE
from ggpy.kernels.claims import claim
from ggpy.kernels.options import inline
from ggpy.simd.matrix import LANES_GROUPS, LANES_STRIDE, int8_lanes, transpose_8x8
from ggpy.simd.memory import LINE, load_f32, load_f32x8, load_i64, prefetch, store_f32, store_f32x8
from ggpy.simd.vectors import constant, f32x8

ROWS = 8  # multiplied together: as many sums as hide the dot's latency
PIECE_BYTES = 12 << 10  # of weights that a thread takes at least
LANES = TILE == 8  # whether a tile of activations fills a register

_zero = constant(f32x8, 0.0)


def one_by_one(unpack, *, block_values: int, block_bytes: int, group: int):
    """`unpack_blocks` of a format that has nothing faster for several blocks than `unpack` of `linear.py`."""
    numbers = 4 * (block_values // group)

    @inline
    def unpack_blocks(w, count, q, scales, mins):
        for i in range(count):
            unpack(w + i * block_bytes, q + i * block_values, scales + i * numbers, mins + i * numbers, 4)

    return unpack_blocks


def token_lanes(unpack_blocks, *, block_values: int, block_bytes: int, group: int, signed: bool):
    """The product of a quantized format. Words as in `linear.py`, activations in tiles of 8 tokens.

    unpack_blocks(w, count, q, scales, mins): `count` neighbouring blocks, LANES_STRIDE values at the most.
    """
    multiply = int8_lanes(ROWS, TILE, group, signed)
    scale_shift = {32: 0, 16: 1}[group]
    sums_at = {32: 8, 16: 4}[group]
    at_once = LANES_STRIDE // block_values

    @inline
    def unpack_rows(w, row_bytes, height, blocks, q, scales, mins):
        """`blocks` blocks of each of `height` rows; asks for the same of the next rows."""
        for r in range(height):
            block, to, low, high = w + r * row_bytes, q + LANES_STRIDE * r, scales + 4 * LANES_GROUPS * r, mins + 4 * LANES_GROUPS * r
            for line in range(0, blocks * block_bytes, LINE):
                prefetch(block + ROWS * row_bytes + line)
            unpack_blocks(block, blocks, to, low, high)

    @inline
    def store_sums(args, sums, turned, row, height, token, count):
        y, y_bytes, added, added_bytes = load_i64(args + 40), load_i64(args + 48), load_i64(args + 88), load_i64(args + 96)
        transpose_8x8(sums, 4 * TILE, turned)
        for t in range(count):
            to, addend = y + (token + t) * y_bytes + 4 * row, added + (token + t) * added_bytes + 4 * row
            if height == ROWS:
                value = load_f32x8(turned + 4 * ROWS * t)
                if added != 0:
                    value = value + load_f32x8(addend)
                store_f32x8(to, value)
            else:
                for r in range(height):
                    one = load_f32(turned + 4 * ROWS * t + 4 * r)
                    if added != 0:
                        one += load_f32(addend + 4 * r)
                    store_f32(to + 4 * r, one)

    @inline
    def lanes(args, ith, crew, n_tokens, token_bytes):
        w, row_bytes, rows, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        x, counter = load_i64(args + 32), load_i64(args + 64)
        q = load_i64(args + 72) + ith * load_i64(args + 80)
        scales = q + ROWS * LANES_STRIDE
        mins = scales + 4 * ROWS * LANES_GROUPS
        turned = mins + 4 * ROWS * LANES_GROUPS
        sums = turned + 4 * ROWS * TILE
        units = (rows + ROWS - 1) // ROWS
        least = max(1, PIECE_BYTES // (ROWS * row_bytes))
        while True:
            first, last = claim(counter, crew, units, least, units)
            if first == last:
                return
            for unit in range(first, last):
                row, height = unit * ROWS, min(ROWS, rows - unit * ROWS)
                for i in range(0, 4 * ROWS * ((n_tokens + TILE - 1) // TILE * TILE), 32):
                    store_f32x8(sums + i, _zero())
                for at in range(0, k // block_values, at_once):
                    blocks = min(at_once, k // block_values - at)
                    unpack_rows(w + row * row_bytes + at * block_bytes, row_bytes, height, blocks, q, scales, mins)
                    begin = at * block_values
                    for token in range(0, n_tokens, TILE):
                        xt = x + token * token_bytes
                        x_scales = xt + k * TILE
                        x_sums = x_scales + k * TILE // sums_at
                        multiply(
                            sums + 4 * ROWS * token,
                            q,
                            scales,
                            mins,
                            xt + begin * TILE,
                            x_scales + begin // 32 * 4 * TILE,
                            scale_shift,
                            x_sums + begin // group * 4 * TILE,
                            blocks * block_values // group,
                        )
                for token in range(0, n_tokens, TILE):
                    store_sums(args, sums + 4 * ROWS * token, turned, row, height, token, min(TILE, n_tokens - token))

    return lanes
