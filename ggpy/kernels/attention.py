"""Grouped-query attention (Ainslie et al., 2023) over the float16 cache, softmax in one pass (Milakov and Gimelshein, 2018).

The tokens of a batch come in segments: `count` tokens of the sequence in a slot of the cache, the first at `position`. A token at
position p attends to positions 0 … p of its slot, or with a window of w to the last w of them. A unit of work is one key-value head with
a tile of up to TOKENS tokens of a segment: all query heads of the group walk the cache together in blocks of BLOCK positions. A segment of
a single token is cut into chunks of CHUNK positions instead, each a unit and a block, so that threads share a long sequence evenly; the
thread that finishes its last chunk adds them all up in their order (as Dao et al., Flash-Decoding, 2023, do on other machines). Where the
cuts are does not depend on the threads.

Words: 0 queries (tokens, heads, head_dim) float32, 1 out (same), 2 heads, 3 key-value heads, 4 head_dim, 5 key cache, 6 value cache
(laid out as in `rope.py`), 7 positions in a slot, 8 address of the number of segments, 9 segments (`segments.py`), 10 address of the claim
counter, 11 scale as float32 bits, 12 scratch, 13 scratch bytes per thread, 14 partial results, 15 arrivals int64 (segments, key-value
heads), zero before and after, 16 address of the threads' desks, or 0 where they do not help each other (`claims.py`),
17 window in positions, or 0 for all, 18 c as float32 bits: a score s becomes c tanh(s / c), or stays where c is 0.

With a window the walk begins at the first position of the sixteen that hold the first one seen, and chunks are counted from there.

A row of results is float32: head_dim sums rounded up to 16, sixteen lanes whose sum is the weights' total, the peak, 15 unused.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.claims import clear, deliver, give_up, hold, is_of_this_walk
from ggpy.kernels.desks import DESK_BYTES
from ggpy.kernels.exponential import exp2_f32x16, tanh_f32x16
from ggpy.kernels.options import inline, kernel
from ggpy.kernels.segments import BLOCK, CHUNK, COUNT, FIRST, POSITION, SEGMENT_BYTES, SLOT, TOKENS
from ggpy.simd.arithmetic import fma, sum_f32, where_below
from ggpy.simd.lanes import largest_lane, where_less
from ggpy.simd.memory import atomic_add, load_f32, load_f32x16, load_i64, store_f32, store_f32x16, store_i64
from ggpy.simd.outer import outer
from ggpy.simd.vectors import constant, f32x16, i32x16, splat

LOG2_E, LOWEST = np.float32(1.4426950408889634), np.float32(-1e30)
_zero, _all, _all_i32 = constant(f32x16, 0.0), splat(f32x16), splat(i32x16)
_lowest, _order = constant(f32x16, -1e30), constant(i32x16, list(range(16)))


@inline
def _cap(scores, count, cap):
    """`count` scores s to cap * tanh(s)."""
    for i in range(0, count, 16):
        store_f32x16(scores + 4 * i, _all(cap) * tanh_f32x16(load_f32x16(scores + 4 * i)))


@inline
def _soften(scores, count, lower, limit, row, padded):
    """One query's `count` scores of a block, as powers of 2, to weights against the running peak; 0 before `lower` and from `limit` on."""
    limit = min(limit, count)
    for i in range(0, lower, 16):
        store_f32x16(scores + 4 * i, where_below(_order(), _all_i32(np.int32(lower - i)), _lowest(), load_f32x16(scores + 4 * i)))
    highest = _lowest()  # never NaN: what is compared with NaN is not less
    for i in range(0, limit, 16):
        s = load_f32x16(scores + 4 * i)
        if limit - i < 16:
            s = where_below(_order(), _all_i32(np.int32(limit - i)), s, _lowest())
            store_f32x16(scores + 4 * i, s)
        highest = where_less(highest, s, s, highest)
    before = load_f32(row + 4 * padded + 64)
    peak = max(before, largest_lane(highest))
    if peak > before:
        factor = exp2_f32x16(_all(before - peak))
        for e in range(0, padded + 16, 16):
            store_f32x16(row + 4 * e, load_f32x16(row + 4 * e) * factor)
        store_f32(row + 4 * padded + 64, peak)
    total = load_f32x16(row + 4 * padded)
    for i in range(0, limit, 16):
        s = load_f32x16(scores + 4 * i)
        weight = exp2_f32x16(s - _all(peak))
        store_f32x16(scores + 4 * i, weight)
        total = fma(s, _zero(), total + weight)  # an infinite score makes it NaN
    store_f32x16(row + 4 * padded, total)
    for i in range((max(limit, 0) + 15) // 16 * 16, count, 16):
        store_f32x16(scores + 4 * i, _zero())


@inline
def _take_queries(source, token_bytes, group, n_queries, head_dim, factor, q):
    """Queries (tokens, group, head_dim), tokens `token_bytes` apart, times `factor` to q (n_queries, head_dim)."""
    for m in range(n_queries):
        x, y = source + m // group * token_bytes + 4 * head_dim * (m % group), q + 4 * head_dim * m
        for i in range(0, head_dim // 16 * 16, 16):
            store_f32x16(y + 4 * i, load_f32x16(x + 4 * i) * _all(factor))
        for i in range(head_dim // 16 * 16, head_dim):
            store_f32(y + 4 * i, load_f32(x + 4 * i) * factor)


@inline
def _clear(rows, n_queries, padded):
    for m in range(n_queries):
        row = rows + m * (4 * padded + 128)
        for e in range(0, padded + 16, 16):
            store_f32x16(row + 4 * e, _zero())
        store_f32(row + 4 * padded + 64, LOWEST)


@inline
def _walk(q, n_queries, group, keys, values, head_dim, padded, first, last, block, position, window, cap, scores, rows):
    """Add positions first … last - 1 of one head, `block` at a time, to `rows`; the first query's token is at `position`."""
    row_bytes = 4 * padded + 128
    for start in range(first, last, block):
        count = min(block, last - start)
        vectors, k, v = (count + 15) // 16, keys + 2 * start * head_dim, values + 2 * start * padded
        outer(n_queries, vectors, scores, 4 * block, k, 32, 32 * head_dim, q, 4 * head_dim, head_dim, 0)
        for m in range(n_queries):
            limit = position + m // group + 1 - start
            if cap != np.float32(0):
                _cap(scores + 4 * block * m, count, cap)
            _soften(scores + 4 * block * m, count, limit - window if window != 0 else 0, limit, rows + m * row_bytes, padded)
        outer(n_queries, padded // 16, rows, row_bytes, v, 2 * padded, 32, scores, 4 * block, count, 1)


@inline
def _combine(partial, chunks, chunk_bytes, row, padded):
    """Add up one query's results of all chunks, in their order, in `row`."""
    peak = load_f32(partial + 4 * padded + 64)
    for c in range(1, chunks):
        peak = max(peak, load_f32(partial + c * chunk_bytes + 4 * padded + 64))
    for e in range(0, padded + 16, 16):
        store_f32x16(row + 4 * e, _zero())
    for c in range(chunks):
        source = partial + c * chunk_bytes
        factor = exp2_f32x16(_all(load_f32(source + 4 * padded + 64) - peak))
        for e in range(0, padded + 16, 16):
            store_f32x16(row + 4 * e, fma(load_f32x16(source + 4 * e), factor, load_f32x16(row + 4 * e)))


@inline
def _write(row, padded, out, head_dim):
    total = sum_f32(load_f32x16(row + 4 * padded))
    for i in range(0, head_dim // 16 * 16, 16):
        store_f32x16(out + 4 * i, load_f32x16(row + 4 * i) / _all(total))
    for i in range(head_dim // 16 * 16, head_dim):
        store_f32(out + 4 * i, load_f32(row + 4 * i) / total)


@inline
def _begin(position, window):
    """Where the walk for a token at `position` begins."""
    return max(0, position + 1 - window) // 16 * 16 if window != 0 else 0


@inline
def _pieces(segment, window):
    """What a key-value head's part of a segment is divided into: chunks of positions for a single token, else tiles of tokens."""
    count, position = load_i64(segment + COUNT), load_i64(segment + POSITION)
    return (position - _begin(position, window)) // CHUNK + 1 if count == 1 else (count + TOKENS - 1) // TOKENS


@kernel
def attention(args, ith, crew):
    queries, out, heads, kv_heads = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    head_dim, key_cache, value_cache = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
    positions, n_segments, segments = load_i64(args + 56), load_i64(load_i64(args + 64)), load_i64(args + 72)
    counter, window, cap = load_i64(args + 80), load_i64(args + 136), load_f32(args + 144)
    factor = load_f32(args + 88) * LOG2_E if cap == np.float32(0) else load_f32(args + 88) / cap
    cap *= LOG2_E
    partials, arrivals, desks = load_i64(args + 112), load_i64(args + 120), load_i64(args + 128)
    desk = desks + ith * DESK_BYTES if desks != 0 else 0
    group, padded = heads // kv_heads, (head_dim + 15) // 16 * 16
    row_bytes, most = 4 * padded + 128, group * TOKENS
    chunk_bytes, head_chunks = group * row_bytes, (positions + CHUNK - 1) // CHUNK
    q = load_i64(args + 96) + ith * load_i64(args + 104)
    rows = q + 4 * most * padded
    scores = rows + row_bytes * most
    units = 0
    for s in range(n_segments):
        units += kv_heads * _pieces(segments + SEGMENT_BYTES * s, window)
    passed, index, pieces = 0, -1, 0
    while True:
        claimed, after, ticket, holder = hold(desk, counter, crew, units, 1, 1)
        if claimed == after:
            return
        while claimed - passed >= kv_heads * pieces and index < n_segments - 1:
            passed += kv_heads * pieces
            index += 1
            pieces = _pieces(segments + SEGMENT_BYTES * index, window)
        unit, segment = claimed - passed, segments + SEGMENT_BYTES * index
        slot, token = load_i64(segment + SLOT), load_i64(segment + FIRST)
        count, position = load_i64(segment + COUNT), load_i64(segment + POSITION)
        if count == 1:
            head, chunk, tokens, block = unit // pieces, unit % pieces, 1, BLOCK
            first, chunks = _begin(position, window) + chunk * CHUNK, pieces
            last = min(first + CHUNK, position + 1)
        else:
            head, offset = unit % kv_heads, (pieces - 1 - unit // kv_heads) * TOKENS  # the longest first
            tokens, block, token, position = min(TOKENS, count - offset), BLOCK, token + offset, position + offset
            chunk, first, last, chunks = 0, _begin(position, window), position + tokens, 1
        source, n_queries, place = 4 * head_dim * (token * heads + head * group), tokens * group, slot * kv_heads + head
        keys, values = key_cache + 2 * place * positions * head_dim, value_cache + 2 * place * positions * padded
        partial = partials + (index * kv_heads + head) * head_chunks * chunk_bytes
        if not is_of_this_walk(holder, ticket):  # else positions and tokens that do not go together could lead past the cache's end
            give_up(desk, holder, ticket)
            if holder != desk:
                return
            continue
        _take_queries(queries + source, 4 * head_dim * heads, group, n_queries, head_dim, factor, q)
        _clear(rows, n_queries, padded)
        _walk(q, n_queries, group, keys, values, head_dim, padded, first, last, block, position, window, cap, scores, rows)
        if deliver(holder, ticket):
            whole = True
            if chunks > 1:
                for i in range(0, chunk_bytes, 64):
                    store_f32x16(partial + chunk * chunk_bytes + i, load_f32x16(rows + i))
                arrived = arrivals + 8 * (index * kv_heads + head)
                whole = atomic_add(arrived, 1) == chunks - 1
                if whole:
                    store_i64(arrived, 0)
                    for m in range(group):
                        _combine(partial + m * row_bytes, chunks, chunk_bytes, rows + m * row_bytes, padded)
            if whole:
                for m in range(n_queries):
                    _write(rows + m * row_bytes, padded, out + source + 4 * head_dim * (m // group * heads + m % group), head_dim)
            clear(desk, holder, ticket)
        else:
            give_up(desk, holder, ticket)
        if holder != desk:
            return
