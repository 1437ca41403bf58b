"""RMSNorm (Zhang and Sennrich, 2019): y = x / sqrt(mean(x^2) + eps) * weight, alone or straight into the activations a product reads.

Words: 0 x (tokens, k) float32, 1 weight (k) float32, 2 out, 3 k, 4 address of the token count, 5 eps as float32 bits, 6 scratch,
7 scratch bytes per thread (4 k; unused by `rms_norm`), 8 address of the claim counter, 9 bytes from
one thread's own `out` to the next for a single token that every thread does for itself, else 0 (not of `rms_norm`). `rms_norm_heads`: 0 x
(tokens, heads, k), 1 to 5 as above, 6 heads, 7 address of the claim counter.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.activations import activations_kernel
from ggpy.kernels.claims import claim
from ggpy.kernels.options import inline, kernel
from ggpy.simd.arithmetic import fma, square_root, sum_f32
from ggpy.simd.memory import load_f32, load_f32x16, load_i64, store_f32, store_f32x16
from ggpy.simd.vectors import constant, f32x16, splat

HEADS = 16  # heads that a thread takes at a time, at least: about a microsecond

_zero, _all = constant(f32x16, 0.0), splat(f32x16)


@inline
def rms_norm_row(x, weight, y, k, eps):
    a, b = _zero(), _zero()
    vectors = k // 16 * 16
    for i in range(0, k // 32 * 32, 32):
        low, high = load_f32x16(x + 4 * i), load_f32x16(x + 4 * i + 64)
        a, b = fma(low, low, a), fma(high, high, b)
    for i in range(k // 32 * 32, vectors, 16):
        low = load_f32x16(x + 4 * i)
        a = fma(low, low, a)
    total = sum_f32(a + b)
    for i in range(vectors, k):
        total += load_f32(x + 4 * i) * load_f32(x + 4 * i)
    factor = np.float32(1) / square_root(total / np.float32(k) + eps)
    for i in range(0, vectors, 16):
        store_f32x16(y + 4 * i, load_f32x16(x + 4 * i) * _all(factor) * load_f32x16(weight + 4 * i))
    for i in range(vectors, k):
        store_f32(y + 4 * i, load_f32(x + 4 * i) * factor * load_f32(weight + 4 * i))


@kernel
def rms_norm(args, ith, crew):
    x, weight, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_tokens, eps, counter = load_i64(load_i64(args + 32)), load_f32(args + 40), load_i64(args + 64)
    while True:
        first, last = claim(counter, crew, n_tokens, 1, n_tokens)
        if first == last:
            return
        for token in range(first, last):
            rms_norm_row(x + 4 * k * token, weight, out + 4 * k * token, k, eps)


@kernel
def rms_norm_heads(args, ith, crew):
    x, weight, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    units, eps, counter = load_i64(load_i64(args + 32)) * load_i64(args + 48), load_f32(args + 40), load_i64(args + 56)
    while True:
        first, last = claim(counter, crew, units, HEADS, units)
        if first == last:
            return
        for unit in range(first, last):
            rms_norm_row(x + 4 * k * unit, weight, out + 4 * k * unit, k, eps)


@inline
def _normed_row(args, ith, token, k):
    row = load_i64(args + 48) + ith * load_i64(args + 56)
    rms_norm_row(load_i64(args) + 4 * k * token, load_i64(args + 8), row, k, load_f32(args + 40))
    return row


rms_norm_int8_32, rms_norm_int8_256, rms_norm_float32, rms_norm_bfloat16 = (
    activations_kernel(kind, _normed_row, out_word=2, counter_word=8) for kind in ("int8_32", "int8_256", "float32", "bfloat16")
)
