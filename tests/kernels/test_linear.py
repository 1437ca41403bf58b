"""Products of every block format against decoded weights, for few tokens (fused dots) and many (panels and tiles)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ggpy.blocks import BLOCKS, BlockFormat, dequantize
from ggpy.kernels.kinds import LANES_UP_TO, activation_kind
from ggpy.runtime.compiled import has_kernel
from ggpy.simd.target import target
from tests.random_fields import random_fields

from .naive import TILED_FROM, activations, aligned, call, count, is_bf16, quantized, rounded_to_bf16, tile_width

FORMATS = [f for f in BLOCKS.values() if has_kernel(f.name.lower())]
NAMES = [f.name for f in FORMATS]
MANY = [33, 64] if target().amx else []  # tokens, so many that the product is another; the second fills its tiles


def weights(fmt: BlockFormat, rows: int, k: int, seed: int = 0) -> np.ndarray:
    """Rows of random integers under scales of ordinary size: uint8 (rows, row bytes)."""
    data = random_fields(fmt, rows * k // fmt.block_values, np.random.default_rng(seed), 0.05)
    return np.ascontiguousarray(data.reshape(rows, -1))


def test_every_format_that_can_be_encoded_has_a_kernel():
    assert {f.name for f in BLOCKS.values() if f.encode is not None} <= set(NAMES)


def product(fmt: BlockFormat, w: np.ndarray, x: np.ndarray, added: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """y (tokens, rows) as the kernel computes it."""
    (n, k), rows = x.shape, len(w)
    acts = activations(x, activation_kind(fmt.name))
    y = aligned((-(-n // tile_width(n)) * tile_width(n), rows))
    scratch = aligned((threads, 1 << 20), np.uint8)
    extra = 0 if added is None else added
    args = (w, w.shape[1], rows, k, acts, y, 4 * rows, count(n), count(0), scratch, scratch.shape[1], extra, 4 * rows)
    call(fmt.name.lower(), "linear", *args, threads=threads)
    return y[:n]


def expected(fmt: BlockFormat, w: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(y, summed magnitudes, what rounding the activations may change), from weights decoded to float32, in float64.

    A product sums at most k float32 terms in 16 lanes, and formats with a minimum subtract a second sum of like size: its error is below
    2^-18 of the summed magnitudes for the k used here. Rounding an activation to int8 moves it by half its scale at most, to bfloat16 by
    2^-9 of itself, and weights likewise.
    """
    dense = dequantize(w, fmt).astype(np.float64)
    kind = activation_kind(fmt.name)
    if is_bf16(len(x), kind):
        rounded, magnitude = rounded_to_bf16(x).astype(np.float64), np.abs(x).astype(np.float64) @ np.abs(dense).T
        largest = np.abs(dense).reshape(len(w), -1, math.gcd(32, x.shape[1])).max(2) * 2.0**-21  # what two ways to decode may differ by
        near = np.repeat(largest, math.gcd(32, x.shape[1]), axis=1)
        low, high = rounded_to_bf16(dense - near).astype(np.float64), rounded_to_bf16(dense + near).astype(np.float64)
        unsure = np.abs(rounded) @ (high - low).T / 2
        return rounded @ (low + high).T / 2, magnitude + unsure * 2**18, magnitude * (2**-7 + 2**-16)
    if not kind.startswith("int8"):
        return x.astype(np.float64) @ dense.T, np.abs(x).astype(np.float64) @ np.abs(dense).T, np.zeros((len(x), len(w)))
    q, scale = quantized(x, int(kind.removeprefix("int8_")))
    rounded = q.astype(np.float64) * scale
    largest = np.abs(dense).reshape(len(w), -1, min(256, x.shape[1]) if x.shape[1] % 256 == 0 else 32).max(2)
    spread = np.repeat(largest, x.shape[1] // largest.shape[1], axis=1) * 4  # minima are of the size of a block's largest value
    return rounded @ dense.T, np.abs(rounded) @ spread.T, (scale / 2) @ np.abs(dense).T


@pytest.mark.parametrize("n_tokens", [1, 3, TILED_FROM, 13, LANES_UP_TO + 1, *MANY])
@pytest.mark.parametrize("fmt", FORMATS, ids=NAMES)
def test_products_equal_decoded_weights_times_rounded_activations(fmt: BlockFormat, n_tokens: int):
    for k in (256, 1024) if fmt.block_values == 256 else (32, 96, 576) if fmt.block_values == 32 else (8, 64, 172):
        w = weights(fmt, 53, k)
        x = np.random.default_rng(1).standard_normal((n_tokens, k)).astype(np.float32)
        want, magnitude, rounding = expected(fmt, w, x)
        got = product(fmt, w, x)
        assert np.all(np.abs(got - want) <= magnitude * 2**-18), f"{fmt.name} k={k}"
        exact = x.astype(np.float64) @ dequantize(w, fmt).astype(np.float64).T
        assert np.all(np.abs(got - exact) <= rounding * 1.001 + magnitude * 2**-18), f"{fmt.name} k={k}: past the bound of rounding"


@pytest.mark.skipif(target().amx, reason="more tokens are multiplied in bfloat16 where the CPU has AMX")
@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt.block_values > 1], ids=lambda fmt: fmt.name)
def test_a_tokens_products_are_the_same_to_the_bit_from_lanes_and_from_panels(fmt: BlockFormat):
    k = 512 if fmt.block_values == 256 else 608
    w = weights(fmt, 53, k)
    x, added = (np.random.default_rng(5).standard_normal((LANES_UP_TO + 5, n)).astype(np.float32) for n in (k, 53))
    together = product(fmt, w, x, added)
    for n_tokens in (TILED_FROM, 8, LANES_UP_TO):
        assert np.array_equal(product(fmt, w, x[:n_tokens], added[:n_tokens]), together[:n_tokens])


@pytest.mark.parametrize("n_tokens", [2, 9, *MANY])
@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q4_1", "Q8_0", "F16", "BF16"])
def test_threads_do_not_change_a_bit_and_addends_are_added(name: str, n_tokens: int):
    fmt = BLOCKS[name]
    w = weights(fmt, 200, 512)
    rng = np.random.default_rng(2)
    x, added = rng.standard_normal((n_tokens, 512)).astype(np.float32), rng.standard_normal((n_tokens, 200)).astype(np.float32)
    alone = product(fmt, w, x)
    for threads in (2, 3):
        assert np.array_equal(product(fmt, w, x, threads=threads), alone)
    assert np.array_equal(product(fmt, w, x, added), alone + added)


@pytest.mark.parametrize("n_tokens", [1, 7, *MANY])
@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "F32", "BF16"])
def test_a_value_that_is_not_finite_reaches_the_result(name: str, n_tokens: int):
    fmt = BLOCKS[name]
    w = weights(fmt, 20, 256)
    for bad in (np.nan, np.inf, -np.inf):
        x = np.random.default_rng(3).standard_normal((n_tokens, 256)).astype(np.float32)
        x[0, 17] = bad
        assert not np.isfinite(product(fmt, w, x)[0]).any()


@pytest.mark.parametrize("fmt", FORMATS, ids=NAMES)
def test_embedding_rows_equal_decoded_rows(fmt: BlockFormat):
    k = 256 if fmt.block_values == 256 else 96 if fmt.block_values == 32 else 24
    w = weights(fmt, 11, k)
    ids = np.array([3, 10, 0, 3], np.int64)
    out, scratch = aligned((4, k)), aligned((2, 4096), np.uint8)
    call(fmt.name.lower(), "embed", w, w.shape[1], k, ids, out, count(4), scratch, 4096, count(0), threads=2)
    want = dequantize(w, fmt)[ids]
    assert np.all(np.abs(out - want) <= 2**-20 * np.abs(want).max())


def test_no_weights_times_anything_is_zero():
    fmt = BLOCKS["Q4_K"]
    w = np.zeros((16, 144), np.uint8)
    assert not product(fmt, w, np.ones((6, 256), np.float32)).any()
