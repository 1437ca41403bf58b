"""Float32 products of whole matrices by ggpy's own kernel of F32 weights: their sums do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from ggpy.kernels.kinds import TILED_FROM
from ggpy.runtime.float_products import Array, multiply, padded_tokens, product_kernel, tiled
from ggpy.simd.target import target

T = TypeVar("T")

_INNER, _AT_ONCE = 1536, 512  # products that are summed, and sums, at a time: 3 MB of x, which stay in a third-level cache
_ROWS_AT_ONCE = 128  # of a Gram matrix


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
        self.all_of(tasks)

    def all_of(self, tasks: Iterable[Callable[[], T]]) -> list[T]:
        """What the tasks give, which must not depend on each other."""
        return [future.result() for future in [self._pool.submit(task) for task in tasks]]

    def linear(self, x: Array, *weights: Array) -> list[Array]:
        """x @ w.T for each of the weights: float32 (n, rows) from x (n, k) and w (rows, k)."""
        weights = tuple(np.ascontiguousarray(w, np.float32) for w in weights)
        results = [np.empty((len(x), len(w)), np.float32) for w in weights]

        def piece(start: int) -> None:
            rows = x[start : start + _AT_ONCE]
            tiles = [tiled(rows[:, k : k + _INNER]) for k in range(0, rows.shape[1], _INNER)]
            for w, result in zip(weights, results, strict=True):
                self._multiply(tiles, len(rows), w, result[start : start + _AT_ONCE])

        self.each(partial(piece, start) for start in range(0, len(x), _AT_ONCE))
        return results

    def small(self, x: Array, weights: Array) -> Array:
        """x @ weights.T on the calling thread, float32 (n, rows); for what is no more than some hundred tokens, and in tasks."""
        weights = np.ascontiguousarray(weights, np.float32)
        return self._multiply([tiled(x)], len(x), weights)

    def outer_sums(self, x: Array, y: Array, take: Callable[[slice, slice, Array], None], *, symmetric: bool) -> None:
        """Σ over tokens of x yᵀ, by pieces, from x (tokens, n) and y (tokens, m): take(rows, columns, piece) gets these rows' columns,
        float32, on any thread. symmetric: x is y, and what lies left of the diagonal is left out but for what is in a piece with it."""
        width, size = y.shape[1], target().tile_tokens
        pieces = self.all_of(partial(_columns_tiled, y[at : at + _INNER]) for at in range(0, len(y), _INNER))
        least = -(-TILED_FROM // size)  # that the kernel takes

        def piece(start: int) -> None:
            stop = min(start + _ROWS_AT_ONCE, x.shape[1])
            rows = np.ascontiguousarray(x[:, start:stop].T, np.float32)
            first = max(0, min(start // size, len(pieces[0]) - least)) if symmetric else 0
            for group in _groups(first, len(pieces[0]), _AT_ONCE // size, least):
                columns = slice(size * group.start, min(size * group.stop, width))
                found = self._multiply([tiles[group] for tiles in pieces], columns.stop - columns.start, rows)
                take(slice(start, stop), columns, found.T)

        self.each(partial(piece, start) for start in range(0, x.shape[1], _ROWS_AT_ONCE))

    def _multiply(self, tiles: list[Array], count: int, weights: Array, out: Array | None = None) -> Array:
        """float32 (count, rows), into `out` if given, from the tiles of every `_INNER` columns of x."""
        padded = len(tiles[0]) * tiles[0].shape[2]
        fits = out is not None and padded == count and out.flags.c_contiguous
        result = out if out is not None and fits else np.empty((padded, len(weights)), np.float32)
        at = 0
        for part in tiles:
            multiply(self._kernel, part, weights[:, at : at + part.shape[1]], result, add=at > 0)
            at += part.shape[1]
        if out is not None and not fits:
            out[...] = result[:count]
        return result[:count]


def _groups(first: int, count: int, size: int, least: int) -> list[slice]:
    """From `first` on to `count`, `size` at a time; none has fewer than `least`, if there are so many at all."""
    starts = list(range(first, max(first + 1, count - least + 1), size))
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def _columns_tiled(y: Array) -> Array:
    """`tiled` of y.T."""
    tokens, width = y.shape
    padded = y
    if (count := padded_tokens(width)) != width:
        padded = np.zeros((tokens, count), np.float32)
        padded[:, :width] = y
    return np.ascontiguousarray(padded.reshape(tokens, -1, target().tile_tokens).transpose(1, 0, 2), np.float32)
