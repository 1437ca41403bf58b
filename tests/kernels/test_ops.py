"""Norm, rotary embedding, cache, attention, SwiGLU and the activations' own layout, each against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ggpy.kernels.segments import CHUNK, partial_bytes, scratch_bytes
from ggpy.runtime.kv_cache import CacheShape, KVCache
from ggpy.runtime.reference import ReferenceCache, ReferenceOps
from ggpy.runtime.rotary import HALVES, INTERLEAVED, Rope

from .naive import TILED_FROM, activations, aligned, call, count, quantized, tile_width

RNG = np.random.default_rng


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.ascontiguousarray(RNG(seed).standard_normal(shape), np.float32)


@pytest.mark.parametrize("k", [16, 64, 172, 576])
@pytest.mark.parametrize("n_tokens", [1, 3, 11])
def test_rms_norm(k: int, n_tokens: int):
    x, weight, out = normal(n_tokens, k) * 3, normal(k, seed=1), aligned((n_tokens, k))
    call("norm", "rms_norm", x, weight, out, k, count(n_tokens), 1e-5, 0, 0, count(0), threads=2)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5) * weight
    assert np.allclose(out, want, rtol=2**-20, atol=2**-24)


def check_token_by_itself(kind: str, data: np.ndarray, scale: np.ndarray, sums_32: np.ndarray, sums_16: np.ndarray):
    """What lies behind the integers of a token that is in no tile; sums_16 of integers."""
    if kind == "int8_32":
        pairs = data[: len(scale) // 4].view(np.float32).reshape(-1, 2)
        assert np.array_equal(pairs[:, 0], scale[::32])
        assert np.allclose(pairs[:, 1], sums_32, rtol=1e-5, atol=1e-6)
    else:
        steps, sums = data[: len(scale) // 64], data[len(scale) // 64 : len(scale) // 64 + len(scale) // 8]
        assert np.array_equal(steps.view(np.float32), scale[::256])
        assert np.array_equal(sums.view(np.int16), sums_16)


@pytest.mark.parametrize("kind", ["int8_32", "int8_256", "float32"])
@pytest.mark.parametrize("n_tokens", [1, TILED_FROM - 1, TILED_FROM, 13])
def test_activations_lie_as_described_and_fused_forms_write_the_same(kind: str, n_tokens: int):
    k, width = 512, tile_width(n_tokens)
    x = normal(n_tokens, k)
    x[0, :256] = 0
    data = activations(x, kind)
    tiles = data.reshape(-1, width * (4 * k if kind == "float32" else k + k // 2))
    for token in range(n_tokens):
        tile, lane = tiles[token // width], token % width
        if kind == "float32":
            assert np.array_equal(tile.view(np.float32).reshape(k, width)[:, lane], x[token])
            continue
        q, scale = quantized(x[token : token + 1], int(kind.removeprefix("int8_")))
        got = tile[: k * width].view(np.int8).reshape(k // 4, width, 4)[:, lane].reshape(-1)
        if width == 1:
            assert np.array_equal(got, q[0])
            check_token_by_itself(kind, tile[k:], scale[0], (q * scale).reshape(-1, 32).sum(1), q.reshape(-1, 16).sum(1))
            continue
        rest = tile[k * width :].view(np.float32)
        scales, sums_32, sums_16 = np.split(rest.reshape(-1, width)[:, lane], [k // 32, k // 16])
        assert np.array_equal(got, q[0])
        assert np.array_equal(scales, scale[0, ::32])
        assert np.allclose(sums_32, (q * scale).reshape(-1, 32).sum(1), rtol=1e-5, atol=1e-6)
        assert np.allclose(sums_16, (q * scale).reshape(-1, 16).sum(1), rtol=1e-5, atol=1e-6)
    gate, up = normal(n_tokens, k, seed=2), normal(n_tokens, k, seed=3)
    product, fused, scratch = aligned((n_tokens, k)), aligned(data.shape, np.uint8, 255), aligned((2, 4 * k), np.uint8)
    for name in ("silu_mul", "gelu_mul"):
        call("pointwise", name, gate, up, product, k, count(n_tokens), 0, 0, count(0))
        call("pointwise", f"{name}_{kind}", gate, up, fused, k, count(n_tokens), scratch, 4 * k, count(0), threads=2)
        assert np.array_equal(fused, activations(product, kind))
    normed, weight, fused = aligned((n_tokens, k)), normal(k, seed=4), aligned(data.shape, np.uint8, 255)
    call("norm", "rms_norm", gate, weight, normed, k, count(n_tokens), 1e-6, 0, 0, count(0))
    call("norm", f"rms_norm_{kind}", gate, weight, fused, k, count(n_tokens), 1e-6, scratch, 4 * k, count(0), threads=2)
    assert np.array_equal(fused, activations(normed, kind))


@pytest.mark.parametrize("k", [16, 37, 576])
def test_silu_mul_over_the_whole_range(k: int):
    gate, up, out = np.linspace(-100, 100, 3 * k, dtype=np.float32).reshape(3, k), normal(3, k), aligned((3, k))
    call("pointwise", "silu_mul", gate, up, out, k, count(3), 0, 0, count(0), threads=2)
    wide = gate.astype(np.float64)
    want = wide / (1 + np.exp(-wide)) * up
    assert np.allclose(out, want, rtol=1e-6, atol=1e-35)
    gate[1, 3] = np.nan
    call("pointwise", "silu_mul", gate, up, out, k, count(3), 0, 0, count(0))
    assert np.isnan(out[1, 3]) and np.isfinite(np.delete(out.reshape(-1), k + 3)).all()


@pytest.mark.parametrize("k", [16, 37, 576])
def test_gelu_mul_over_the_whole_range(k: int):
    gate, up, out = np.linspace(-12, 12, 3 * k, dtype=np.float32).reshape(3, k), normal(3, k), aligned((3, k))
    gate[0, 0], gate[2, 0] = -1000, 1000
    call("pointwise", "gelu_mul", gate, up, out, k, count(3), 0, 0, count(0), threads=2)
    wide = gate.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    with np.errstate(over="ignore"):
        want = wide / (1 + np.exp(-2 * inner)) * up
    # an argument of exp in float32 is off by 2^-24 of itself, up to 88; past that 1 / exp no longer shrinks
    assert np.allclose(out, want, rtol=2e-5, atol=1e-35)
    near = np.abs(wide) < 2
    assert np.allclose(out[near], want[near], rtol=2e-6)
    gate[1, 3] = np.nan
    call("pointwise", "gelu_mul", gate, up, out, k, count(3), 0, 0, count(0))
    assert np.isnan(out[1, 3]) and np.isfinite(np.delete(out.reshape(-1), k + 3)).all()


@pytest.mark.parametrize("cap", [1.0, 30.0])
def test_soft_cap_and_scale(cap: float):
    x = np.concatenate([np.linspace(-100, 100, 4001), np.geomspace(1e-30, 100, 2002)]).astype(np.float32).reshape(3, -1)
    for threads in (1, 3):
        out = aligned(x.shape)
        call("pointwise", "soft_cap", x, out, x.shape[1], count(3), cap, count(0), threads=threads)
        assert np.allclose(out, cap * np.tanh(x.astype(np.float64) / cap), rtol=5e-7, atol=0)
        call("pointwise", "scale", x, out, x.shape[1], count(3), cap + 0.1, count(0), threads=threads)
        assert np.array_equal(out, x * np.float32(cap + 0.1))
    x[1, 7] = np.nan
    call("pointwise", "soft_cap", x, out, x.shape[1], count(3), cap, count(0))
    assert np.isnan(out[1, 7]) and np.isfinite(np.delete(out.reshape(-1), x.shape[1] + 7)).all()


@pytest.mark.parametrize(("n_tokens", "k"), [(1, 5), (3, 37), (7, 64)])
def test_add_and_take_rows(n_tokens: int, k: int):
    a, b, out = normal(n_tokens, k), normal(n_tokens, k, seed=1), aligned((n_tokens, k))
    for threads in (1, 2, 3):
        out.fill(0)
        call("pointwise", "add", a, b, out, k, count(n_tokens), count(0), threads=threads)
        assert np.array_equal(out, a + b)
    rows = np.array([n_tokens - 1, 0, n_tokens // 2])
    taken = aligned((3, k))
    call("pointwise", "take_rows", a, taken, k, count(3), rows, count(0), threads=2)
    assert np.array_equal(taken, a[rows])


@pytest.mark.parametrize("pairing", [INTERLEAVED, HALVES])
@pytest.mark.parametrize(("head_dim", "n_rot"), [(8, 8), (64, 64), (80, 32)])
def test_rope_turns_the_pairs_of_either_pairing(pairing: int, head_dim: int, n_rot: int):
    rope = Rope(head_dim, n_rot, 10000.0, pairing, factors=np.linspace(1, 4, n_rot // 2, dtype=np.float32))
    x, out = normal(5, 3 * head_dim), aligned((5, 3 * head_dim))
    cosines, sines = rope.tables(np.arange(100, 105))
    call("rope", "rope", x, out, 3, head_dim, n_rot, pairing, cosines, sines, count(5), count(0), 0, 0.0, threads=2)
    complex_pairs = x.reshape(5, 3, head_dim)[..., :n_rot]
    a, b = (complex_pairs[..., ::2], complex_pairs[..., 1::2]) if pairing == INTERLEAVED else np.split(complex_pairs, 2, -1)
    angle = np.arange(100, 105)[:, None] * 10000.0 ** (-np.arange(0, n_rot, 2) / n_rot) / np.linspace(1, 4, n_rot // 2, dtype=np.float32)
    turned = (a + 1j * b) * np.exp(1j * angle)[:, None, :]
    got = out.reshape(5, 3, head_dim)
    real, imaginary = (got[..., :n_rot:2], got[..., 1:n_rot:2]) if pairing == INTERLEAVED else np.split(got[..., :n_rot], 2, -1)
    assert np.allclose(real, turned.real, atol=1e-6) and np.allclose(imaginary, turned.imag, atol=1e-6)
    assert np.array_equal(got[..., n_rot:], x.reshape(5, 3, head_dim)[..., n_rot:])
    reference = ReferenceOps(CacheShape(1, 1, head_dim))
    reference.position = 100
    assert np.allclose(out, reference.rope(x, rope), atol=1e-6)


Segments = list[tuple[int, int, int]]
"""(slot, position, count) of each segment of a batch."""


def places(segments: Segments) -> np.ndarray:
    """Slot and position of each token."""
    return np.array([(slot, position + i) for slot, position, count in segments for i in range(count)], np.int64)


def filled_cache(segments: Segments, kv_heads: int, head_dim: int, positions: int) -> KVCache:
    """A cache that holds each segment's tokens and what is before them, stored by `append` as two batches."""
    cache = KVCache(CacheShape(1, kv_heads, head_dim), positions, slots=1 + max(slot for slot, _, _ in segments))
    scratch = aligned((2, 4 * head_dim), np.uint8)
    before = [(slot, 0, position) for slot, position, _ in segments if position]
    for seed, part in ((1, before), (2, segments)):
        if not part:
            continue
        where = places(part)
        keys, values = (normal(len(where), kv_heads * head_dim, seed=seed + s) for s in (0, 10))
        words = (keys, values, kv_heads, head_dim, 0, 0, 0, 0, count(len(where)), where, cache.keys[0], cache.values[0], cache.positions,
                 scratch, scratch.shape[1], count(0), 0, 0.0)  # fmt: skip
        call("rope", "append", *words, threads=2)
        for i, (slot, position) in enumerate(where):
            stored = [part[position].reshape(-1) for part in cache.read(0, position + 1, slot)]
            for got, row in zip(stored, (keys[i], values[i]), strict=True):
                assert np.array_equal(got, row.astype(np.float16).astype(np.float32))
            if i == 40:  # reading back is slow
                break
    return cache


def attend(q: np.ndarray, segments: Segments, cache: KVCache, heads: int, threads: int, window: int = 0, cap: float = 0.0) -> np.ndarray:
    """What the kernel makes of queries (tokens, heads * head_dim)."""
    shape = cache.shape
    firsts = np.cumsum([0, *(n for _, _, n in segments)])
    table = np.array([(slot, first, n, position) for (slot, position, n), first in zip(segments, firsts, strict=False)], np.int64)
    out = aligned(q.shape)
    scratch = aligned((threads, scratch_bytes(heads // shape.n_kv_heads, shape.head_dim)), np.uint8)
    partials = aligned(len(segments) * partial_bytes(heads, shape.head_dim, cache.positions), np.uint8)
    arrivals = aligned((len(segments), shape.n_kv_heads), np.int64)
    words = (q, out, heads, shape.n_kv_heads, shape.head_dim, cache.keys[0], cache.values[0], cache.positions, count(len(segments)), table,
             count(0), float(shape.head_dim**-0.5), scratch, scratch.shape[1], partials, arrivals, 0, window, cap)  # fmt: skip
    call("attention", "attention", *words, threads=threads)
    assert not arrivals.any()
    return out


def expected(q: np.ndarray, segments: Segments, cache: KVCache, window: int = 0, cap: float = 0.0) -> np.ndarray:
    """The same by the reference op, segment by segment."""
    parts, first = [], 0
    for slot, position, n in segments:
        reference = ReferenceOps(cache.shape)
        kept = ReferenceCache(*cache.read(0, position + n, slot))
        parts.append(reference.attention(q[first : first + n], kept, cache.shape.head_dim**-0.5, window, cap))
        first += n
    return np.concatenate(parts)


def check_attention(segments: Segments, heads: int, kv_heads: int, head_dim: int, window: int = 0, cap: float = 0.0) -> None:
    cache = filled_cache(segments, kv_heads, head_dim, max(position + n for _, position, n in segments) + 1)
    q = normal(sum(n for _, _, n in segments), heads * head_dim, seed=3) * 2
    results = [attend(q, segments, cache, heads, threads, window, cap) for threads in (1, 2, 3)]
    want = expected(q, segments, cache, window, cap)
    assert all(np.array_equal(result, results[0]) for result in results)
    assert np.abs(results[0] - want).max() <= 2**-16 * np.abs(want).max()


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (4, 4, 8), (8, 1, 40), (2, 2, 128), (3, 1, 6)])
@pytest.mark.parametrize(("cached", "n_tokens"), [(0, 1), (0, 9), (63, 1), (64, 2), (130, 70)])
def test_attention_over_the_cache(heads: int, kv_heads: int, head_dim: int, cached: int, n_tokens: int):
    check_attention([(0, cached, n_tokens)], heads, kv_heads, head_dim)


@pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 6, 7, 8, 11])
@pytest.mark.parametrize("n_tokens", [1, 3])
def test_attention_of_any_group(group: int, n_tokens: int):
    check_attention([(0, 2 * CHUNK + 77, n_tokens)], 2 * group, 2, 64)


@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 100])
@pytest.mark.parametrize("position", [CHUNK - 1, CHUNK, 3 * CHUNK - 1])
def test_attention_of_one_token_in_chunks(head_dim: int, position: int):
    check_attention([(0, position, 1)], 3, 1, head_dim)


@pytest.mark.parametrize("window", [1, 15, 16, 17, 100, CHUNK, CHUNK + 9, 5000])
@pytest.mark.parametrize("n_tokens", [1, 70])
def test_attention_within_a_window(window: int, n_tokens: int):
    """One token whose window is several chunks or a part of one; tiles whose tokens' windows begin in different blocks; sequences shorter
    than the window."""
    check_attention([(0, 3 * CHUNK - 5, n_tokens), (1, 0, n_tokens), (2, 90, 1)], 6, 2, 40, window)


@pytest.mark.parametrize(("window", "cap"), [(0, 50.0), (37, 2.0)])
def test_attention_of_capped_scores(window: int, cap: float):
    check_attention([(0, 2 * CHUNK + 77, 1), (1, 130, 20)], 4, 2, 64, window, cap)


def test_what_is_before_the_window_is_not_read():
    cache = filled_cache([(0, 900, 1)], 1, 32, 901)
    q = normal(1, 32, seed=3)
    want = attend(q, [(0, 900, 1)], cache, 1, 1, 100)
    cache.keys[0][:, :, : 800 // 16] = np.nan
    cache.values[0][:, :, :800] = np.nan
    assert np.array_equal(attend(q, [(0, 900, 1)], cache, 1, 1, 100), want)


def test_attention_of_several_sequences_at_once():
    segments = [(2, 700, 1), (0, 0, 5), (4, 1100, 1), (1, 60, 20), (3, 0, 1)]
    check_attention(segments, 6, 2, 64)
    cache = filled_cache(segments, 2, 64, 1101)
    q = normal(28, 6 * 64, seed=3)
    together, first = attend(q, segments, cache, 6, 2), 0
    for slot, position, n in segments:  # what else is in the batch changes nothing
        alone = attend(np.ascontiguousarray(q[first : first + n]), [(slot, position, n)], cache, 6, 2)
        assert np.array_equal(together[first : first + n], alone)
        first += n


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["keys", "values"])
@pytest.mark.parametrize(("cached", "n_tokens"), [(1300, 1), (130, 9)])
def test_what_is_not_finite_stays_visible_to_those_that_see_it(bad: float, part: str, cached: int, n_tokens: int):
    """Two heads of four queries' group, slot 1. A fault at a position reaches all tokens from there on, and no other head or slot.

    In values it also reaches earlier tokens that walk the cache together with later ones: their weight of 0 does not hide it."""
    segments = [(0, cached, 1), (1, cached, n_tokens)]
    cache = filled_cache(segments, 2, 64, cached + n_tokens + 40)
    at = cached + n_tokens // 2
    layer = getattr(cache, part)[0]
    place = (1, 0, at // 16, 5, at % 16) if part == "keys" else (1, 0, at, 5)
    layer[place] = bad
    ahead = cached + n_tokens + 3  # left by a sequence that was longer: not of this one
    layer[(1, 1, ahead // 16, 5, ahead % 16) if part == "keys" else (1, 1, ahead, 5)] = bad
    q = np.abs(normal(1 + n_tokens, 4 * 64, seed=3)) + 1
    with np.errstate(invalid="ignore"):
        out = attend(q, segments, cache, 4, 2).reshape(1 + n_tokens, 2, 2, 64)
    faulty = ~np.isfinite(out[1:, 0]).all(-1)
    assert faulty[n_tokens // 2 :].all() and (part == "values" or not faulty[: n_tokens // 2].any())
    assert np.isfinite(out[0]).all() and np.isfinite(out[:, 1]).all()


def test_a_cache_copies_a_beginning_to_another_slot():
    shape = CacheShape(2, 3, 40)
    source, target = KVCache(shape, 100), KVCache(shape, 200, slots=3)
    for part in (*source.keys, *source.values):
        part[:] = RNG(0).standard_normal(part.shape)
    target.copy(source, 0, 1, 37)
    target.copy(target, 1, 2, 21)
    for layer in range(2):
        for got, want in zip(target.read(layer, 37, 1), source.read(layer, 37), strict=True):
            assert np.array_equal(got, want)
        for got, want in zip(target.read(layer, 21, 2), source.read(layer, 21), strict=True):
            assert np.array_equal(got, want)
        assert not any(part.any() for part in target.read(layer, 200, 0))


def test_powers_of_two_as_attention_takes_them():
    """Weights of one query over a cache whose scores are known: relative error of each below 2^-21."""
    head_dim, positions = 16, 2048
    cache = KVCache(CacheShape(1, 1, head_dim), positions)
    cache.keys[0][0, 0, :, 0, :] = np.linspace(0, -90, positions).astype(np.float16).reshape(-1, 16)
    cache.values[0][0, 0, :, 0] = 1
    cache.values[0][0, 0, ::2, 1] = 1
    q = np.zeros((1, head_dim), np.float32)
    q[0, 0] = head_dim**0.5
    out = attend(q, [(0, positions - 1, 1)], cache, 1, 1)[0]
    weights = np.exp(cache.keys[0][0, 0, :, 0, :].reshape(-1).astype(np.float64))
    assert np.allclose(out[:2], [1, weights[::2].sum() / weights.sum()], rtol=2**-21)


def test_keys_are_turned_as_they_are_stored():
    rope, cache = Rope(32, 32, 500000.0, HALVES), KVCache(CacheShape(1, 2, 32), 64)
    keys, values, turned, scratch = normal(5, 64), normal(5, 64, seed=1), aligned((5, 64)), aligned((2, 128), np.uint8)
    cosines, sines = rope.tables(np.arange(7, 12))
    call("rope", "rope", keys, turned, 2, 32, 32, HALVES, cosines, sines, count(5), count(0), 0, 0.0)
    words = (
        keys,
        values,
        2,
        32,
        32,
        HALVES,
        cosines,
        sines,
        count(5),
        places([(0, 7, 5)]),
        cache.keys[0],
        cache.values[0],
        64,
        scratch,
        128,
        count(0),
        0,
        0.0,
    )
    call("rope", "append", *words, threads=2)
    assert np.array_equal(cache.read(0, 12)[0][7:].reshape(5, 64), turned.astype(np.float16).astype(np.float32))
