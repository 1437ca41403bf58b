"""Rotary position embedding (Su et al., 2021), alone or while keys and values are appended to the cache; of heads that are normed before
where there is a norm's weight.

Pair i of a head is turned by the angle whose cosine and sine stand in tables (tokens, n_rot / 2); pairs are neighbours (2i, 2i + 1) in mode
INTERLEAVED, halves (i, i + n_rot / 2) in mode HALVES; values past n_rot stay.

Words of rope: 0 x (tokens, heads, head_dim) float32, 1 out, 2 heads, 3 head_dim, 4 n_rot, 5 mode, 6 cosines, 7 sines, 8 address of the
token count, 9 address of the claim counter, 10 weight of the norm, float32 (head_dim), or 0, 11 its eps as float32 bits. Words of append:
0 keys, 1 values (tokens, heads, head_dim) float32, 2 heads, 3 head_dim, 4 n_rot (0: keys are not turned), 5 mode, 6 cosines, 7 sines,
8 address of the token count, 9 places int64 (tokens, 2): slot and position of each, 10 key cache, 11 value cache, 12 positions in a slot,
13 scratch, 14 scratch bytes per thread (4 * head_dim), 15 address of the claim counter, 16 and 17 as 10 and 11 of rope.

The cache is float16. Keys: (slots, heads, positions / 16, head_dim, 16), so that attention scores sixteen positions at once; values:
(slots, heads, positions, head_dim rounded up to 16).
"""

from __future__ import annotations

from ggpy.kernels.claims import claim
from ggpy.kernels.norm import HEADS, rms_norm_row
from ggpy.kernels.options import inline, kernel
from ggpy.simd.memory import load_f32, load_i64, store_f16, store_f32

INTERLEAVED, HALVES = 1, 2


@inline
def _rotate(x, y, head_dim, n_rot, mode, cosines, sines):
    for i in range(n_rot // 2):
        c, s = load_f32(cosines + 4 * i), load_f32(sines + 4 * i)
        first = 2 * i if mode == INTERLEAVED else i
        second = 2 * i + 1 if mode == INTERLEAVED else i + n_rot // 2
        a, b = load_f32(x + 4 * first), load_f32(x + 4 * second)
        store_f32(y + 4 * first, a * c - b * s)
        store_f32(y + 4 * second, a * s + b * c)
    for i in range(n_rot, head_dim):
        store_f32(y + 4 * i, load_f32(x + 4 * i))


@kernel
def rope(args, ith, crew):
    x, out, heads, head_dim = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_rot, mode, cosines, sines = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48), load_i64(args + 56)
    units, counter = load_i64(load_i64(args + 64)) * heads, load_i64(args + 72)
    weight, eps = load_i64(args + 80), load_f32(args + 88)
    while True:
        first, last = claim(counter, crew, units, HEADS, units)
        if first == last:
            return
        for unit in range(first, last):
            table = unit // heads * (n_rot // 2) * 4
            head, to = x + 4 * unit * head_dim, out + 4 * unit * head_dim
            if weight != 0:
                rms_norm_row(head, weight, to, head_dim, eps)
                head = to
            _rotate(head, to, head_dim, n_rot, mode, cosines + table, sines + table)


@kernel
def append(args, ith, crew):
    keys, values, heads, head_dim = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
    n_rot, mode, cosines, sines = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48), load_i64(args + 56)
    units, places = load_i64(load_i64(args + 64)) * heads, load_i64(args + 72)
    key_cache, value_cache, positions = load_i64(args + 80), load_i64(args + 88), load_i64(args + 96)
    turned, padded = load_i64(args + 104) + ith * load_i64(args + 112), (head_dim + 15) // 16 * 16
    counter, weight, eps = load_i64(args + 120), load_i64(args + 128), load_f32(args + 136)
    while True:
        first, last = claim(counter, crew, units, HEADS, units)
        if first == last:
            return
        for unit in range(first, last):
            token, head = unit // heads, unit % heads
            key, value = keys + 4 * unit * head_dim, values + 4 * unit * head_dim
            place, position = load_i64(places + 16 * token) * heads + head, load_i64(places + 16 * token + 8)
            if weight != 0:
                rms_norm_row(key, weight, turned, head_dim, eps)
                key = turned
            if n_rot != 0:
                table = token * (n_rot // 2) * 4
                _rotate(key, turned, head_dim, n_rot, mode, cosines + table, sines + table)
                key = turned
            to = key_cache + 2 * (place * positions * head_dim + position // 16 * 16 * head_dim + position % 16)
            for i in range(head_dim):
                store_f16(to + 32 * i, load_f32(key + 4 * i))
            to = value_cache + 2 * (place * positions + position) * padded
            for i in range(head_dim):
                store_f16(to + 2 * i, load_f32(value + 4 * i))
