"""Float32 products of whole matrices by ggpy's own kernel of F32 weights: their sums do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ggpy.kernels.kinds import TILED_FROM
from ggpy.runtime.float_products import Array, multiply, padded_tokens, product_kernel, tiled
from ggpy.simd.target import target

_TOKENS_AT_ONCE = 512
_COLUMNS_AT_ONCE = 128  # of a Gram matrix: what is multiplied and added up while it is in a core's cache


class Products:
    """Products on `threads` threads. A context manager; leaving it ends them."""

    def __init__(self, threads: int):
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ggpy-quantize")
        self._kernel = product_kernel()

    def __enter__(self) -> Products:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Run the tasks, which must not depend on each other, and wait for all."""
        for future in [self._pool.submit(task) for task in tasks]:
            future.result()

    def linear(self, x: Array, *weights: Array) -> list[Array]:
        """x @ w.T for each of the weights: float32 (n, rows) from x (n, k) and w (rows, k)."""
        weights = tuple(np.ascontiguousarray(w, np.float32) for w in weights)
        results = [np.empty((len(x), len(w)), np.float32) for w in weights]

        def piece(start: int) -> None:
            rows = x[start : start + _TOKENS_AT_ONCE]
            tiles = tiled(rows)
            for w, result in zip(weights, results, strict=True):
                self._multiply(tiles, len(rows), w, result[start : start + _TOKENS_AT_ONCE])

        self.each(partial(piece, start) for start in range(0, len(x), _TOKENS_AT_ONCE))
        return results

    def small(self, x: Array, weights: Array) -> Array:
        """x @ weights.T on the calling thread, float32 (n, rows); for what is no more than some hundred tokens, and in tasks."""
        weights = np.ascontiguousarray(weights, np.float32)
        return self._multiply(tiled(x), len(x), weights)

    def outer_sums(self, x: Array, y: Array, take: Callable[[int, int, int, Array], None], *, symmetric: bool) -> None:
        """Σ over tokens of x yᵀ, by pieces, from x (tokens, n) and y (tokens, m): take(start, stop, first, piece) gets the columns from
        `first` on of its rows start to stop, float32 (stop - start, m - first), on any thread. symmetric: x is y, and what lies left of the
        diagonal is left out but for a few columns; `first` is at most `start`."""
        tiles, width = _columns_tiled(y), y.shape[1]

        def piece(start: int) -> None:
            stop = min(start + _COLUMNS_AT_ONCE, x.shape[1])
            rows = np.ascontiguousarray(x[:, start:stop].T, np.float32)
            skipped = start // tiles.shape[2] if symmetric else 0
            # the kernel wants a few tiles at least
            skipped = max(0, min(skipped, len(tiles) - -(-TILED_FROM // tiles.shape[2])))
            first = skipped * tiles.shape[2]
            take(start, stop, first, self._multiply(tiles[skipped:], width - first, rows).T)

        self.each(partial(piece, start) for start in range(0, x.shape[1], _COLUMNS_AT_ONCE))

    def _multiply(self, tiles: Array, count: int, weights: Array, out: Array | None = None) -> Array:
        """float32 (count, rows), into `out` if given."""
        padded = len(tiles) * tiles.shape[2]
        fits = out is not None and padded == count and out.flags.c_contiguous
        result = out if out is not None and fits else np.empty((padded, len(weights)), np.float32)
        multiply(self._kernel, tiles, weights, result)
        if out is not None and not fits:
            out[...] = result[:count]
        return result[:count]


def _columns_tiled(y: Array) -> Array:
    """`tiled` of y.T."""
    tokens, width = y.shape
    padded = y
    if (count := padded_tokens(width)) != width:
        padded = np.zeros((tokens, count), np.float32)
        padded[:, :width] = y
    return np.ascontiguousarray(padded.reshape(tokens, -1, target().tile_tokens).transpose(1, 0, 2), np.float32)
