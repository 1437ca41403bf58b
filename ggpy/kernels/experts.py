"""Mixtures of experts: which experts a token goes to, and any other kernel run once for each expert that has tokens, on those alone.

A token's activations are made once for each of its experts, so that an expert's lie together: `slots`. Their order is that of experts, then
of tokens; an expert with so many that they are tiled has the room that its last tile needs. The routing table, int64 words:

    0        stamp: walk << UNIT_BITS, plus the number of the op it was made for; 0 while it is written
    1        n: experts that have tokens
    2        (n_experts, 3): number, first slot, count of slots, of the first n
    2 + 3 E  (n_experts): for `group` alone

A thread that comes late may find the table of another op or walk, whose experts' claim counters it has not seen used up; so what it reads
counts only while the stamp is that of its own op. Then these counters are used up by whoever did the work.

Words of route: 0 logits float32 (tokens, n_experts), 1 out float32 (tokens, 2 n_used): numbers, probabilities, 2 n_experts, 3 n_used,
4 whether probabilities are to sum up to 1, 5 address of the token count, 6 address of the claim counter. Of group: 0 routes as above,
1 n_experts, 2 n_used, 3 address of the token count, 4 routing table, 5 number of the op, 6 slot of each of a token's experts int64 (tokens,
n_used), 7 token of each slot int64 (slots), 8 rows that tiles are filled up to, 9 address of the claim counter. Of each: 0 address of the
kernel, 1 its words, int64 (n, 4): value, and what is added for each expert, slot and active expert before this one's, 2 n, 3 routing table,
4 number of the op, 5 scratch, 6 scratch bytes per thread, 7 where in it the words go. Of mix: 0 rows float32 (slots, k), 1 routes, 2 out
float32 (tokens, k), 3 k, 4 n_used, 5 address of the token count, 6 slot of each of a token's experts, 7 address of the claim counter, 8
what is added, float32 (tokens, k), or 0.
"""

from __future__ import annotations

import numpy as np

from ggpy.kernels.claims import UNIT_BITS, claim, threads
from ggpy.kernels.desks import ENTRIES
from ggpy.kernels.executor import call_kernel
from ggpy.kernels.exponential import exp_f32x16
from ggpy.kernels.kinds import TILED_FROM
from ggpy.kernels.options import inline, kernel
from ggpy.simd.arithmetic import fma
from ggpy.simd.memory import atomic_load, atomic_replace, atomic_store, load_f32, load_f32x16, load_i64, store_f32, store_f32x16, store_i64
from ggpy.simd.vectors import constant, extract, f32x16, splat

MIXED = 512  # values that a thread mixes at a time

_zero, _all, _lane = constant(f32x16, 0.0), splat(f32x16), extract(f32x16)
_WALK = -1 << UNIT_BITS


@inline
def _exp(x):
    return _lane(exp_f32x16(_all(x)), 0)


@inline
def _next_likeliest(logits, n_experts, before, value):
    """The expert that follows number `before`, of logit `value`, in the order of falling logits and rising numbers; 0 where none does."""
    best, found = np.float32(-np.inf), -1
    for i in range(n_experts):
        x = load_f32(logits + 4 * i)
        follows = before < 0 or x < value or (x == value and i > before)
        if follows and (x > best or (found < 0 and x == best)):
            best, found = x, i
    return max(found, 0)


@kernel
def route(args, ith, crew):
    logits, out, n_experts, n_used = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_tokens, counter = load_i64(load_i64(args + 40)), load_i64(args + 48)
    while True:
        first, last = claim(counter, crew, n_tokens, 1, n_tokens)
        if first == last:
            return
        for token in range(first, last):
            row, numbers = logits + 4 * n_experts * token, out + 8 * n_used * token
            weights = numbers + 4 * n_used
            number, value, chosen = -1, np.float32(0), np.float32(0)
            for j in range(n_used):
                number = _next_likeliest(row, n_experts, number, value)
                value = load_f32(row + 4 * number)
                store_f32(numbers + 4 * j, np.float32(number))
            highest, total = load_f32(row + 4 * np.int64(load_f32(numbers))), np.float32(0)
            for i in range(n_experts):
                total += _exp(load_f32(row + 4 * i) - highest)
            for j in range(n_used):
                likely = _exp(load_f32(row + 4 * np.int64(load_f32(numbers + 4 * j))) - highest) / total
                store_f32(weights + 4 * j, likely)
                chosen += likely
            if load_i64(args + 32) != 0:
                for j in range(n_used):
                    store_f32(weights + 4 * j, load_f32(weights + 4 * j) / chosen)


@kernel
def group(args, ith, crew):
    routes, n_experts, n_used = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    n_tokens, table, slots, tokens = load_i64(load_i64(args + 24)), load_i64(args + 32), load_i64(args + 48), load_i64(args + 56)
    first, last = claim(load_i64(args + 72), crew, 1, 1, 1)
    if first == last:
        return
    atomic_replace(table, atomic_load(table), 0)
    following = table + ENTRIES + 24 * n_experts  # counts, then each expert's next slot
    for e in range(n_experts):
        store_i64(following + 8 * e, 0)
    for token in range(n_tokens):
        for j in range(n_used):
            at = following + 8 * np.int64(load_f32(routes + 8 * n_used * token + 4 * j))
            store_i64(at, load_i64(at) + 1)
    active, slot, tile = 0, 0, load_i64(args + 64)
    for e in range(n_experts):
        count = load_i64(following + 8 * e)
        store_i64(following + 8 * e, slot)
        if count > 0:
            entry = table + ENTRIES + 24 * active
            store_i64(entry, e)
            store_i64(entry + 8, slot)
            store_i64(entry + 16, count)
            active += 1
            slot += count if count < TILED_FROM else (count + tile - 1) // tile * tile
    for token in range(n_tokens):
        for j in range(n_used):
            at = following + 8 * np.int64(load_f32(routes + 8 * n_used * token + 4 * j))
            slot = load_i64(at)
            store_i64(at, slot + 1)
            store_i64(tokens + 8 * slot, token)
            store_i64(slots + 8 * (n_used * token + j), slot)
    store_i64(table + 8, active)
    atomic_store(table, (crew & _WALK) + load_i64(args + 40))


@kernel
def each(args, ith, crew):
    words, n_words, table = load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    stamp = (crew & _WALK) + load_i64(args + 32)
    own = load_i64(args + 40) + ith * load_i64(args + 48) + load_i64(args + 56)
    n_done = 0
    while True:
        if atomic_load(table) != stamp:
            return
        active = load_i64(table + 8)
        i = n_done + ith * active // threads(crew)  # each thread begins with experts of its own, whose weights it reads in long pieces
        i = i - active if i >= active else i
        entry = table + ENTRIES + 24 * i
        number, slot = load_i64(entry), load_i64(entry + 8)
        if atomic_replace(table, stamp, stamp) != stamp or n_done >= active:
            return
        for j in range(n_words):
            word = words + 32 * j
            moved = number * load_i64(word + 8) + slot * load_i64(word + 16) + i * load_i64(word + 24)
            store_i64(own + 8 * j, load_i64(word) + moved)
        alone = n_done + 1 < active // threads(crew)  # nobody else comes to it soon: it may be taken in one piece
        call_kernel(load_i64(args), own, ith, (crew & _WALK) + 1 if alone else crew)
        n_done += 1


@kernel
def mix(args, ith, crew):
    rows, routes, out, k = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_used, n_tokens, slots, added = load_i64(args + 32), load_i64(load_i64(args + 40)), load_i64(args + 48), load_i64(args + 64)
    pieces = (k + MIXED - 1) // MIXED
    while True:
        first, last = claim(load_i64(args + 56), crew, n_tokens * pieces, 1, n_tokens * pieces)
        if first == last:
            return
        for unit in range(first, last):
            token, begin = unit // pieces, unit % pieces * MIXED
            end, whole = min(begin + MIXED, k), min(begin + MIXED, k // 16 * 16)
            weights, places = routes + 8 * n_used * token + 4 * n_used, slots + 8 * n_used * token
            for i in range(begin, whole, 16):
                total = _zero()
                for j in range(n_used):
                    row = rows + 4 * k * load_i64(places + 8 * j)
                    total = fma(_all(load_f32(weights + 4 * j)), load_f32x16(row + 4 * i), total)
                if added != 0:
                    total = total + load_f32x16(added + 4 * (k * token + i))
                store_f32x16(out + 4 * (k * token + i), total)
            for i in range(max(begin, whole), end):
                rest = np.float32(0)
                for j in range(n_used):
                    rest += load_f32(weights + 4 * j) * load_f32(rows + 4 * (k * load_i64(places + 8 * j) + i))
                if added != 0:
                    rest += load_f32(added + 4 * (k * token + i))
                store_f32(out + 4 * (k * token + i), rest)
