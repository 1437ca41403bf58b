"""Element by element: SwiGLU's silu(gate) * up and GeGLU's gelu(gate) * up (Shazeer, 2020), sums, scaling, also by a sigmoid of each
token's own, soft-capping, and the rows that become logits.

Words of silu_mul, gelu_mul and their forms: 0 gate, 1 up (tokens, k) float32, 2 out, 3 k, 4 address of the token count, 5 scratch,
6 scratch bytes per thread (4 k; unused by the plain ones), 7 address of the claim counter, 8 bytes from one thread's own `out` to the next
for a single token that every thread does for itself, else 0 (not of the plain ones). Words of add: 0 a, 1 b, 2 out, 3 k, 4 address of the
token count, 5 address of the claim counter. Words of take_rows: 0 x, 1 out, 2 k, 3 address of the count, 4 the rows' numbers int64 (count),
5 address of the claim counter. Words of sigmoid_scale: 0 x, 1 gate float32 (tokens), 2 out, 3 k, 4 address of the token count, 5 address
of the claim counter. Words of scale and soft_cap: 0 x, 1 out, 2 k, 3 address of the token count, 4 the factor or cap as float32 bits, 5
address of the claim counter.
"""

from __future__ import annotations

from ggpy.kernels.activations import activations_kernel
from ggpy.kernels.claims import claim
from ggpy.kernels.exponential import exp_f32x16, tanh_f32x16
from ggpy.kernels.options import inline, kernel
from ggpy.simd.arithmetic import fma
from ggpy.simd.memory import load_f32, load_f32x16, load_i64, store_f32, store_f32x16
from ggpy.simd.vectors import constant, extract, f32x16, splat

ADDED = 256  # vectors of sixteen that a thread adds at a time, at least: about a microsecond

_one, _zero, _all, _lane = constant(f32x16, 1.0), constant(f32x16, 0.0), splat(f32x16), extract(f32x16)
_gelu_linear, _gelu_cubic = constant(f32x16, -1.5957691216057308), constant(f32x16, -0.07135481282553484)  # -2 sqrt(2 / pi), times 0.044715


@inline
def _silu(x):
    return x / (_one() + exp_f32x16(_zero() - x))


@inline
def _gelu(x):
    """0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel, 2016), which is x / (1 + exp(-2 u))."""
    return x / (_one() + exp_f32x16(x * fma(x * x, _gelu_cubic(), _gelu_linear())))


def _gated(activate):
    """The kernel of activate(gate) * up and its forms, one for each kind of activations."""

    @inline
    def gated_row(gate, up, y, k):
        vectors = k // 16 * 16
        for i in range(0, vectors, 16):
            store_f32x16(y + 4 * i, activate(load_f32x16(gate + 4 * i)) * load_f32x16(up + 4 * i))
        for i in range(vectors, k):
            store_f32(y + 4 * i, _lane(activate(_all(load_f32(gate + 4 * i))), 0) * load_f32(up + 4 * i))

    @kernel
    def gated(args, ith, crew):
        gate, up, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        n_tokens, counter = load_i64(load_i64(args + 32)), load_i64(args + 56)
        while True:
            first, last = claim(counter, crew, n_tokens, 1, n_tokens)
            if first == last:
                return
            for token in range(first, last):
                gated_row(gate + 4 * k * token, up + 4 * k * token, out + 4 * k * token, k)

    @inline
    def written_row(args, ith, token, k):
        row = load_i64(args + 40) + ith * load_i64(args + 48)
        gated_row(load_i64(args) + 4 * k * token, load_i64(args + 8) + 4 * k * token, row, k)
        return row

    return gated, *(
        activations_kernel(kind, written_row, out_word=2, counter_word=7) for kind in ("int8_32", "int8_256", "float32", "bfloat16")
    )


silu_mul, silu_mul_int8_32, silu_mul_int8_256, silu_mul_float32, silu_mul_bfloat16 = _gated(_silu)
gelu_mul, gelu_mul_int8_32, gelu_mul_int8_256, gelu_mul_float32, gelu_mul_bfloat16 = _gated(_gelu)


def _mapped(change):
    """The kernel of change(x, number)."""

    @kernel
    def mapped(args, ith, crew):
        x, out, number = load_i64(args), load_i64(args + 8), _all(load_f32(args + 32))
        count, counter = load_i64(args + 16) * load_i64(load_i64(args + 24)), load_i64(args + 40)
        vectors = (count + 15) // 16
        while True:
            first, last = claim(counter, crew, vectors, ADDED, vectors)
            if first == last:
                return
            whole = min(last, count // 16) * 16
            for i in range(first * 16, whole, 16):
                store_f32x16(out + 4 * i, change(load_f32x16(x + 4 * i), number))
            for i in range(whole, min(last * 16, count)):
                store_f32(out + 4 * i, _lane(change(_all(load_f32(x + 4 * i)), number), 0))

    return mapped


@inline
def _times(x, factor):
    return x * factor


@inline
def _capped(x, cap):
    return cap * tanh_f32x16(x / cap)


scale, soft_cap = _mapped(_times), _mapped(_capped)


@kernel
def add(args, ith, crew):
    a, b, out = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    count, counter = load_i64(args + 24) * load_i64(load_i64(args + 32)), load_i64(args + 40)
    vectors = (count + 15) // 16
    while True:
        first, last = claim(counter, crew, vectors, ADDED, vectors)
        if first == last:
            return
        whole = min(last, count // 16) * 16
        for i in range(first * 16, whole, 16):
            store_f32x16(out + 4 * i, load_f32x16(a + 4 * i) + load_f32x16(b + 4 * i))
        for i in range(whole, min(last * 16, count)):
            store_f32(out + 4 * i, load_f32(a + 4 * i) + load_f32(b + 4 * i))


@kernel
def sigmoid_scale(args, ith, crew):
    x, gate, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_tokens, counter = load_i64(load_i64(args + 32)), load_i64(args + 40)
    vectors = k // 16 * 16
    while True:
        first, last = claim(counter, crew, n_tokens, 1, n_tokens)
        if first == last:
            return
        for token in range(first, last):
            share = _one() / (_one() + exp_f32x16(_zero() - _all(load_f32(gate + 4 * token))))
            source, to = x + 4 * k * token, out + 4 * k * token
            for i in range(0, vectors, 16):
                store_f32x16(to + 4 * i, load_f32x16(source + 4 * i) * share)
            for i in range(vectors, k):
                store_f32(to + 4 * i, load_f32(source + 4 * i) * _lane(share, 0))


@kernel
def take_rows(args, ith, crew):
    x, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    count, rows, counter = load_i64(load_i64(args + 24)), load_i64(args + 32), load_i64(args + 40)
    while True:
        first, last = claim(counter, crew, count, 1, count)
        if first == last:
            return
        for row in range(first, last):
            source, to = x + 4 * k * load_i64(rows + 8 * row), out + 4 * k * row
            for i in range(k):
                store_f32(to + 4 * i, load_f32(source + 4 * i))
