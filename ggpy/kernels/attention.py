"""Grouped-query attention (Ainslie et al., 2023) over the float16 cache, softmax in one pass (Milakov and Gimelshein, 2018).

A unit of work is one key-value head with a tile of tokens: all query heads of the group walk the cache together, so each key and value is
read and widened once for all of them. Queries are taken four at a time, the registers' worth; positions in blocks of 64, lanes being
positions for scores and head dimensions for the weighted sum. A token at position p attends to positions 0 … p.

Words: 0 queries (tokens, heads, head_dim) float32, 1 out (same), 2 heads, 3 key-value heads, 4 head_dim, 5 key cache, 6 value cache
(laid out as in `rope.py`), 7 positions in the cache, 8 address of the token count, 9 address of the first position, 10 address of the claim
counter, 11 scale as float32 bits, 12 scratch, 13 scratch bytes per thread (see `scratch_bytes`).
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.claims import claim
from ggpy.kernels.exponential import exp_f32x16
from ggpy.kernels.options import inline, kernel
from ggpy.simd.arithmetic import fma, max_f32, maximum, sum_f32, where_below
from ggpy.simd.memory import load_f16x16, load_f32, load_f32x16, load_i64, store_f32, store_f32x16
from ggpy.simd.vectors import constant, convert, extract, f16x16, f32x16, i32x16, splat

BLOCK = 64
TOKENS = 8  # tokens of a unit when there are many

_zero, _all, _all_i32, _lane = constant(f32x16, 0.0), splat(f32x16), splat(i32x16), extract(f32x16)
_lowest, _order = constant(f32x16, -1e30), constant(i32x16, list(range(16)))
_widen = convert(f16x16, f32x16)


@inline
def _scores(q, head_dim, keys, scores):
    """Four queries at q (4, head_dim) with the sixteen keys at `keys` (head_dim, 16); scores are BLOCK floats apart."""
    a, b, c, d = _zero(), _zero(), _zero(), _zero()
    row = 4 * head_dim
    for i in range(head_dim):
        key = _widen(load_f16x16(keys + 32 * i))
        at = q + 4 * i
        a = fma(key, _all(load_f32(at)), a)
        b = fma(key, _all(load_f32(at + row)), b)
        c = fma(key, _all(load_f32(at + 2 * row)), c)
        d = fma(key, _all(load_f32(at + 3 * row)), d)
    store_f32x16(scores, a)
    store_f32x16(scores + 4 * BLOCK, b)
    store_f32x16(scores + 8 * BLOCK, c)
    store_f32x16(scores + 12 * BLOCK, d)


@inline
def _weigh(weights, count, values, padded, sums):
    """Add to four sums (4, padded) the `count` values at `values` (count, padded), each times its weight."""
    for e in range(0, padded, 16):
        at = sums + 4 * e
        a, b = load_f32x16(at), load_f32x16(at + 4 * padded)
        c, d = load_f32x16(at + 8 * padded), load_f32x16(at + 12 * padded)
        for j in range(count):
            value = _widen(load_f16x16(values + 2 * (j * padded + e)))
            w = weights + 4 * j
            a = fma(value, _all(load_f32(w)), a)
            b = fma(value, _all(load_f32(w + 4 * BLOCK)), b)
            c = fma(value, _all(load_f32(w + 8 * BLOCK)), c)
            d = fma(value, _all(load_f32(w + 12 * BLOCK)), d)
        store_f32x16(at, a)
        store_f32x16(at + 4 * padded, b)
        store_f32x16(at + 8 * padded, c)
        store_f32x16(at + 12 * padded, d)


@inline
def _soften(scores, limit, sums, padded, state):
    """Scores of one block to weights against the running maximum; positions from `limit` on weigh nothing. state: maximum, total."""
    highest = _lowest()
    for i in range(0, BLOCK, 16):
        s = where_below(_order(), _all_i32(np.int32(limit - i)), load_f32x16(scores + 4 * i), _lowest())
        store_f32x16(scores + 4 * i, s)
        highest = maximum(highest, s)
    before = load_f32(state)
    peak = maximum(before, max_f32(highest))
    total = _zero()
    for i in range(0, BLOCK, 16):
        weight = exp_f32x16(load_f32x16(scores + 4 * i) - _all(peak))
        weight = where_below(_order(), _all_i32(np.int32(limit - i)), weight, _zero())
        store_f32x16(scores + 4 * i, weight)
        total = total + weight
    factor = _lane(exp_f32x16(_all(before - peak)), 0)
    store_f32(state, peak)
    store_f32(state + 4, load_f32(state + 4) * factor + sum_f32(total))
    if factor != np.float32(1):
        for e in range(0, padded, 16):
            store_f32x16(sums + 4 * e, load_f32x16(sums + 4 * e) * _all(factor))


@kernel
def attention(args, ith, crew):
    queries, out, heads, kv_heads = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    head_dim, key_cache, value_cache = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
    positions, n_tokens, start = load_i64(args + 56), load_i64(load_i64(args + 64)), load_i64(load_i64(args + 72))
    counter, scale = load_i64(args + 80), load_f32(args + 88)
    group, padded = heads // kv_heads, (head_dim + 15) // 16 * 16
    most = (group * TOKENS + 3) // 4 * 4
    q = load_i64(args + 96) + ith * load_i64(args + 104)
    scores = q + 4 * most * head_dim
    sums = scores + 4 * most * BLOCK
    state = sums + 4 * most * padded
    tiles = (n_tokens + TOKENS - 1) // TOKENS
    while True:
        unit, after = claim(counter, crew, tiles * kv_heads, 1, 1)
        if unit == after:
            return
        head, first = unit % kv_heads, (tiles - 1 - unit // kv_heads) * TOKENS  # the longest first
        tokens = min(TOKENS, n_tokens - first)
        n_queries = tokens * group
        whole = (n_queries + 3) // 4 * 4
        for m in range(whole):
            source = queries + 4 * head_dim * ((first + min(m, n_queries - 1) // group) * heads + head * group + m % group)
            for i in range(head_dim):
                store_f32(q + 4 * (m * head_dim + i), load_f32(source + 4 * i) * scale)
            for e in range(0, padded, 16):
                store_f32x16(sums + 4 * (m * padded + e), _zero())
            store_f32(state + 8 * m, np.float32(-1e30))
            store_f32(state + 8 * m + 4, np.float32(0))
        keys = key_cache + 2 * head * positions * head_dim
        values = value_cache + 2 * head * positions * padded
        last = start + first + tokens
        for block in range(0, last, BLOCK):
            count = min(BLOCK, last - block)
            for m in range(0, whole, 4):
                for i in range(0, count, 16):
                    _scores(q + 4 * m * head_dim, head_dim, keys + 2 * (block + i) * head_dim, scores + 4 * (m * BLOCK + i))
                for n in range(m, m + 4):
                    limit = start + first + min(n, n_queries - 1) // group + 1 - block
                    _soften(scores + 4 * n * BLOCK, limit, sums + 4 * n * padded, padded, state + 8 * n)
                _weigh(scores + 4 * m * BLOCK, count, values + 2 * block * padded, padded, sums + 4 * m * padded)
        for m in range(n_queries):
            to = out + 4 * head_dim * ((first + m // group) * heads + head * group + m % group)
            total = load_f32(state + 8 * m + 4)
            for i in range(head_dim):
                store_f32(to + 4 * i, load_f32(sums + 4 * (m * padded + i)) / total)
