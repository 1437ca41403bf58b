"""Norm, rotary embedding, cache, attention, SwiGLU and the activations' own layout, each against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

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
    product, fused, scratch = aligned((n_tokens, k)), aligned(data.shape, np.uint8), aligned((2, 4 * k), np.uint8)
    call("pointwise", "silu_mul", gate, up, product, k, count(n_tokens), 0, 0, count(0))
    call("pointwise", f"silu_mul_{kind}", gate, up, fused, k, count(n_tokens), scratch, 4 * k, count(0), threads=2)
    assert np.array_equal(fused, activations(product, kind))
    normed, weight, fused = aligned((n_tokens, k)), normal(k, seed=4), aligned(data.shape, np.uint8)
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


@pytest.mark.parametrize(("n_tokens", "k"), [(1, 5), (3, 37), (7, 64)])
def test_add_and_take_rows(n_tokens: int, k: int):
    a, b, out = normal(n_tokens, k), normal(n_tokens, k, seed=1), aligned((n_tokens, k))
    for threads in (1, 2, 3):
        out.fill(0)
        call("pointwise", "add", a, b, out, k, count(n_tokens), count(0), threads=threads)
        assert np.array_equal(out, a + b)
    taken = aligned((n_tokens - n_tokens // 2, k))
    call("pointwise", "take_rows", a, taken, k, count(len(taken)), count(n_tokens // 2), count(0), threads=2)
    assert np.array_equal(taken, a[n_tokens // 2 :])


@pytest.mark.parametrize("pairing", [INTERLEAVED, HALVES])
@pytest.mark.parametrize(("head_dim", "n_rot"), [(8, 8), (64, 64), (80, 32)])
def test_rope_turns_the_pairs_of_either_pairing(pairing: int, head_dim: int, n_rot: int):
    rope = Rope(head_dim, n_rot, 10000.0, pairing, factors=np.linspace(1, 4, n_rot // 2, dtype=np.float32))
    x, out = normal(5, 3 * head_dim), aligned((5, 3 * head_dim))
    cosines, sines = rope.tables(100, 5)
    call("rope", "rope", x, out, 3, head_dim, n_rot, pairing, cosines, sines, count(5), count(0), threads=2)
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


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (4, 4, 8), (8, 1, 40), (2, 2, 128)])
@pytest.mark.parametrize(("cached", "n_tokens"), [(0, 1), (0, 9), (63, 1), (64, 2), (130, 70)])
def test_attention_over_the_cache(heads: int, kv_heads: int, head_dim: int, cached: int, n_tokens: int):
    cache = KVCache(CacheShape(1, kv_heads, head_dim), 256)
    total = cached + n_tokens
    keys, values = (normal(total, kv_heads * head_dim, seed=s) for s in (1, 2))
    scratch = aligned((2, 1 << 18), np.uint8)
    for first, last in ((0, cached), (cached, total)):
        words = (keys[first:last], values[first:last], kv_heads, head_dim, 0, 0, 0, 0, count(last - first), count(first), cache.keys[0],
                 cache.values[0], cache.positions, scratch, scratch.shape[1], count(0))  # fmt: skip
        call("rope", "append", *words, threads=2)
    half_keys, half_values = keys.astype(np.float16).astype(np.float32), values.astype(np.float16).astype(np.float32)
    got_keys, got_values = cache.read(0, total)
    assert np.array_equal(got_keys.reshape(total, -1), half_keys) and np.array_equal(got_values.reshape(total, -1), half_values)
    q = normal(n_tokens, heads * head_dim, seed=3) * 2
    results = []
    for threads in (1, 2):
        out = aligned((n_tokens, heads * head_dim))
        words = (q, out, heads, kv_heads, head_dim, cache.keys[0], cache.values[0], cache.positions, count(n_tokens), count(cached),
                 count(0), float(head_dim**-0.5), scratch, scratch.shape[1])  # fmt: skip
        call("attention", "attention", *words, threads=threads)
        results.append(out)
    reference = ReferenceOps(CacheShape(1, kv_heads, head_dim))
    shape = (total, kv_heads, head_dim)
    want = reference.attention(q, ReferenceCache(half_keys.reshape(shape), half_values.reshape(shape)), head_dim**-0.5)
    assert np.array_equal(results[0], results[1])
    assert np.abs(results[0] - want).max() <= 2**-16 * np.abs(want).max()


def test_keys_are_turned_as_they_are_stored():
    rope, cache = Rope(32, 32, 500000.0, HALVES), KVCache(CacheShape(1, 2, 32), 64)
    keys, values, turned, scratch = normal(5, 64), normal(5, 64, seed=1), aligned((5, 64)), aligned((2, 128), np.uint8)
    cosines, sines = rope.tables(7, 5)
    call("rope", "rope", keys, turned, 2, 32, 32, HALVES, cosines, sines, count(5), count(0))
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
        count(7),
        cache.keys[0],
        cache.values[0],
        64,
        scratch,
        128,
        count(0),
    )
    call("rope", "append", *words, threads=2)
    assert np.array_equal(cache.read(0, 12)[0][7:].reshape(5, 64), turned.astype(np.float16).astype(np.float32))
