"""Activations as the matrix products read them, one kernel per kind.

A kind is named by the block of activations that shares a scale: int8_32 (as ggml's Q8_0 and Q8_1), int8_256 (as Q8_K), float32.
Below TILED_FROM tokens each lies by itself, for dots; int8 kinds then hold

    q        int8    (k)
    int8_32  pairs   float32 (k / 32, 2)       scale; scale times the sum of the 32
    int8_256 step    float32 (k / 256)         the scale
             sums    int16   (k / 16)          sums of sixteen

From TILED_FROM tokens on they lie in tiles of TILE tokens side by side. A tile of k values holds

    int8 kinds   q      int8    (k / 4, TILE, 4)
                 scale  float32 (k / 32, TILE)    repeated within a block of 256
                 sum32  float32 (k / 32, TILE)    scale times the sum of 32 values, for weights with a minimum
                 sum16  float32 (k / 16, TILE)    the same of 16 values
    float32      x      float32 (k, TILE)

so a token takes k + k/8 + k/8 + k/4 bytes, or 4 k, and one by itself has as much room.

Where the CPU has AMX, BF16_FROM tokens and more are written once as bfloat16 for every kind but float32, in tiles of 16 tokens: bfloat16
(k / 32, tokens, 32), k padded with zeros; bfloat16 is the kind that is float32 for fewer.

Words of each kernel: x (tokens, k) float32, out, k, address of the token count, address of the claim counter, bytes from one thread's own
`out` to the next for a single token that every thread does for itself, else 0; of `…_taken`, also the row of x that becomes each token,
int64 (tokens). A thread takes whole tiles, so that no two write to one cache line.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.claims import claim
from ggpy.kernels.kinds import BF16_FROM, BF16_STEP, TILED_FROM
from ggpy.kernels.options import inline, kernel
from ggpy.simd.arithmetic import absolute, fma, max_f32, maximum, round_even, sum_f32, sum_i32
from ggpy.simd.memory import load_f32, load_f32x16, load_i64, scatter_i8x16, store, store_f32, store_i8x16, store_i16, store_u16
from ggpy.simd.target import target
from ggpy.simd.tiles import TILE_BYTES, TILE_ROW_BYTES, TILE_ROWS, bf16_join, u16x32
from ggpy.simd.vectors import constant, convert, extract, f32x16, i8x16, i32x16, splat

TILE = target().tile_tokens
AMX = target().amx

_all, _lane, _store_u16x32 = splat(f32x16), extract(u16x32), store(u16x32)
_zero = constant(f32x16, 0.0)
_to_i32, _to_i8 = convert(f32x16, i32x16), convert(i32x16, i8x16)


@inline
def tile_width(n_tokens):
    """Tokens per tile for a batch of `n_tokens`; for activations that stay float32, TILE at the most."""
    if n_tokens < TILED_FROM:
        return 1
    return TILE_ROWS if AMX and n_tokens >= BF16_FROM else TILE


@inline
def _largest(x, first, block):
    """The largest magnitude of a block of float32 values; not finite where a value is not: it must not vanish in the rounding."""
    highest, taint = _zero(), _zero()
    for i in range(first, first + block, 16):
        values = load_f32x16(x + 4 * i)
        highest = maximum(highest, absolute(values))
        taint = fma(values, _zero(), taint)
    return max_f32(highest) + sum_f32(taint)


@inline
def _inverse(amax):
    return _all(np.float32(127) / amax if amax > np.float32(0) else np.float32(0))


@inline
def _rounded(x, i, inverse):
    """i32x16: values i … i + 15 of the row at x, scaled and rounded."""
    return _to_i32(round_even(load_f32x16(x + 4 * i) * inverse))


@inline
def quantize_token(x, k, out, block):
    """A token by itself at `out` from float32 values at `x`; `block` values share a scale of max |x| / 127."""
    pairs, steps, sums = out + k, out + k, out + k + k // 64
    for first in range(0, k, block):
        amax = _largest(x, first, block)
        scale, inverse = amax / np.float32(127), _inverse(amax)
        for i in range(first, first + block, 32):
            low, high = _rounded(x, i, inverse), _rounded(x, i + 16, inverse)
            store_i8x16(out + i, _to_i8(low))
            store_i8x16(out + i + 16, _to_i8(high))
            if block == 32:
                store_f32(pairs + i // 4, scale)
                store_f32(pairs + i // 4 + 4, scale * np.float32(sum_i32(low + high)))
            else:
                store_i16(sums + i // 8, np.int16(sum_i32(low)))
                store_i16(sums + i // 8 + 2, np.int16(sum_i32(high)))
        if block != 32:
            store_f32(steps + first // 64, scale)


@inline
def quantize_row(x, k, out, lane, block):
    """Token `lane` of the tile at `out`, likewise."""
    scales = out + k * TILE + 4 * lane
    sums_32, sums_16 = scales + k * TILE // 8, scales + k * TILE // 4
    for first in range(0, k, block):
        amax = _largest(x, first, block)
        scale, inverse = amax / np.float32(127), _inverse(amax)
        for i in range(first, first + block, 32):
            low, high = _rounded(x, i, inverse), _rounded(x, i + 16, inverse)
            scatter_i8x16(out + i * TILE + 4 * lane, 4 * TILE, _to_i8(low))
            scatter_i8x16(out + (i + 16) * TILE + 4 * lane, 4 * TILE, _to_i8(high))
            low_sum, high_sum = np.float32(sum_i32(low)), np.float32(sum_i32(high))
            group = 4 * TILE * (i // 32)
            store_f32(scales + group, scale)
            store_f32(sums_32 + group, scale * (low_sum + high_sum))
            store_f32(sums_16 + 2 * group, scale * low_sum)
            store_f32(sums_16 + 2 * group + 4 * TILE, scale * high_sum)


@inline
def copy_row(x, k, out, lane, tokens):
    """Token `lane` of the float32 tile at `out`."""
    for i in range(k):
        store_f32(out + 4 * (i * tokens + lane), load_f32(x + 4 * i))


@inline
def round_row(x, k, out, token):
    """Token `token` of bfloat16 activations at `out`, rounded to nearest even."""
    steps = (k + BF16_STEP - 1) // BF16_STEP
    out += token // TILE_ROWS * steps * TILE_BYTES + token % TILE_ROWS * TILE_ROW_BYTES
    for i in range(0, k // BF16_STEP * BF16_STEP, BF16_STEP):
        _store_u16x32(out, bf16_join(load_f32x16(x + 4 * i), load_f32x16(x + 4 * i + 64)))
        out += TILE_BYTES
    if k % BF16_STEP != 0:
        for i in range(BF16_STEP):
            at = k // BF16_STEP * BF16_STEP + i
            value = load_f32(x + 4 * at) if at < k else np.float32(0)
            store_u16(out + 2 * i, _lane(bf16_join(_all(value), _zero()), 0))


@inline
def tile_of(out, token, tokens, token_bytes):
    """Address of the tile that holds `token`."""
    return out + token // tokens * tokens * token_bytes


def writer(kind):
    """put(row, k, out, token, tokens): a token's float32 values at `row` into its place among activations of `kind`."""
    block = int(kind.removeprefix("int8_")) if kind.startswith("int8_") else 0

    @inline
    def put_int8(row, k, out, token, tokens):
        if tokens == 1:
            quantize_token(row, k, out + token * (k + k // 2), block)
        else:
            quantize_row(row, k, tile_of(out, token, TILE, k + k // 2), token % TILE, block)

    @inline
    def put_float32(row, k, out, token, tokens):
        width = min(tokens, TILE)
        copy_row(row, k, tile_of(out, token, width, 4 * k), token % width, width)

    put_few = put_int8 if block else put_float32

    @inline
    def put(row, k, out, token, tokens):
        if tokens == TILE_ROWS:
            round_row(row, k, out, token)
        else:
            put_few(row, k, out, token, tokens)

    return put if AMX and kind != "float32" else put_few


def activations_kernel(kind, row_of, *, out_word, counter_word):
    """The kernel that writes every token as activations of `kind`.

    row_of(args, ith, token, k) -> address of the token's float32 values. Words from out_word on: out, k, address of the token count; from
    counter_word on: address of the claim counter, then bytes from one thread's own out to the next, or 0 where all share one: with own
    ones each thread writes the single token for itself.
    """
    put = writer(kind)

    @kernel
    def write_activations(args, ith, crew):
        out, k = load_i64(args + 8 * out_word), load_i64(args + 8 * out_word + 8)
        n_tokens = load_i64(load_i64(args + 8 * out_word + 16))
        counter, own = load_i64(args + 8 * counter_word), load_i64(args + 8 * counter_word + 8)
        if own != 0:
            n_tokens = 1
            out += ith * own
        width = tile_width(n_tokens)
        tiles = (n_tokens + width - 1) // width
        while True:
            first, last = (0, 1) if own != 0 else claim(counter, crew, tiles, 1, tiles)
            if first == last:
                return
            for token in range(first * width, min(last * width, n_tokens)):
                put(row_of(args, ith, token, k), k, out, token, width)
            if own != 0:
                return

    return write_activations


@inline
def _given_row(args, ith, token, k):
    return load_i64(args) + 4 * k * token


int8_32, int8_256, float32, bfloat16 = (
    activations_kernel(kind, _given_row, out_word=1, counter_word=4) for kind in ("int8_32", "int8_256", "float32", "bfloat16")
)


@inline
def _taken_row(args, ith, token, k):
    return load_i64(args) + 4 * k * load_i64(load_i64(args + 48) + 8 * token)


int8_32_taken, int8_256_taken, float32_taken, bfloat16_taken = (
    activations_kernel(kind, _taken_row, out_word=1, counter_word=4) for kind in ("int8_32", "int8_256", "float32", "bfloat16")
)
