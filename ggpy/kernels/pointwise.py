"""Element by element: SwiGLU's silu(gate) * up (Shazeer, 2020), sums, and the rows that become logits.

Words of silu_mul and its forms: 0 gate, 1 up (tokens, k) float32, 2 out, 3 k, 4 address of the token count, 5 scratch, 6 scratch bytes per
thread (4 k; unused by `silu_mul`). Words of add: 0 a, 1 b, 2 out, 3 k, 4 address of the token count. Words of take_rows: 0 x, 1 out, 2 k,
3 address of the count, 4 address of the first row.
"""

from __future__ import annotations

from ggpy.kernels.activations import tile_width, writer
from ggpy.kernels.exponential import exp_f32x16
from ggpy.kernels.options import inline, kernel
from ggpy.simd.memory import load_f32, load_f32x16, load_i64, store_f32, store_f32x16
from ggpy.simd.vectors import constant, extract, f32x16, splat

_one, _zero, _all, _lane = constant(f32x16, 1.0), constant(f32x16, 0.0), splat(f32x16), extract(f32x16)


@inline
def _silu(x):
    return x / (_one() + exp_f32x16(_zero() - x))


@inline
def silu_mul_row(gate, up, y, k):
    vectors = k // 16 * 16
    for i in range(0, vectors, 16):
        store_f32x16(y + 4 * i, _silu(load_f32x16(gate + 4 * i)) * load_f32x16(up + 4 * i))
    for i in range(vectors, k):
        store_f32(y + 4 * i, _lane(_silu(_all(load_f32(gate + 4 * i))), 0) * load_f32(up + 4 * i))


@kernel
def silu_mul(args, ith, nth):
    gate, up, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_tokens = load_i64(load_i64(args + 32))
    token = ith
    while token < n_tokens:
        silu_mul_row(gate + 4 * k * token, up + 4 * k * token, out + 4 * k * token, k)
        token += nth


def _into_activations(kind):
    put = writer(kind)

    @kernel
    def silu_mul_into(args, ith, nth):
        gate, up, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        n_tokens = load_i64(load_i64(args + 32))
        row = load_i64(args + 40) + ith * load_i64(args + 48)
        tokens = tile_width(n_tokens)
        token = ith
        while token < n_tokens:
            silu_mul_row(gate + 4 * k * token, up + 4 * k * token, row, k)
            put(row, k, out, token, tokens)
            token += nth

    return silu_mul_into


silu_mul_int8_32, silu_mul_int8_256, silu_mul_float32 = (_into_activations(kind) for kind in ("int8_32", "int8_256", "float32"))


@kernel
def add(args, ith, nth):
    a, b, out = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    count = load_i64(args + 24) * load_i64(load_i64(args + 32))
    first, last = count * ith // nth // 16 * 16, count * (ith + 1) // nth // 16 * 16
    if ith == nth - 1:
        for i in range(last, count):
            store_f32(out + 4 * i, load_f32(a + 4 * i) + load_f32(b + 4 * i))
    for i in range(first, last, 16):
        store_f32x16(out + 4 * i, load_f32x16(a + 4 * i) + load_f32x16(b + 4 * i))


@kernel
def take_rows(args, ith, nth):
    x, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    count, first = load_i64(load_i64(args + 24)), load_i64(load_i64(args + 32))
    row = ith
    while row < count:
        for i in range(k):
            store_f32(out + 4 * (row * k + i), load_f32(x + 4 * ((first + row) * k + i)))
        row += nth
