"""Matrix products with weights that are read a piece at a time, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.converter.stream import Workers
from ggpy.kernels.kinds import TILED_FROM, scratch_bytes
from ggpy.runtime.compiled import kernel
from ggpy.runtime.encode import widened
from ggpy.runtime.parallel import run_kernel
from ggpy.simd.target import target

_PIECE_VALUES = 1 << 20
LINE = 64  # bytes that scratch memory is aligned to


@dataclass(frozen=True)
class Rows:
    """A matrix that lies in a file. read(start, stop): its rows, float32, float16 or bfloat16 by its bits, (stop - start, columns)."""

    name: str
    n_rows: int
    n_columns: int
    read: Callable[[int, int], np.ndarray]

    def values(self) -> NDArray[np.float32]:
        """All of it, float32 (n_rows, n_columns); for what is small."""
        return widened(self.read(0, self.n_rows))

    def part(self, first: int, last: int) -> Rows:
        """Rows `first` to before `last`, as a matrix."""
        return Rows(
            f"{self.name}[{first}:{last}]", last - first, self.n_columns, lambda start, stop: self.read(first + start, first + stop)
        )

    def at(self, rows: np.ndarray) -> NDArray[np.float32]:
        """The rows with these numbers, float32 (len(rows), n_columns), each read once."""
        numbers, places = np.unique(rows, return_inverse=True)
        return np.concatenate([widened(self.read(int(row), int(row) + 1)) for row in numbers])[places]


class Products:
    """Products with `Rows`: each of `threads` threads reads, decodes and multiplies pieces, in float32 by the kernel of F32 weights, whose
    sums do not depend on the threads. A context manager; leaving it ends them."""

    def __init__(self, threads: int):
        self._workers = Workers(threads)
        self._kernel = kernel("f32", "linear")

    def __enter__(self) -> Products:
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.close()

    def __call__(self, x: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """x @ rows.T: float32 (n, n_rows) from x float32 (n, n_columns)."""
        tile = target().tile_tokens
        tokens = -(-max(len(x), TILED_FROM) // tile) * tile
        padded = np.zeros((tokens, rows.n_columns), np.float32)
        padded[: len(x)] = x
        tiles = np.ascontiguousarray(padded.reshape(-1, tile, rows.n_columns).transpose(0, 2, 1))  # as the kernel reads its activations
        result = np.empty((tokens, rows.n_rows), np.float32)
        step = max(1, _PIECE_VALUES // rows.n_columns)
        pieces = (
            partial(self._multiply, tiles, rows, start, min(start + step, rows.n_rows), result) for start in range(0, rows.n_rows, step)
        )
        for _ in self._workers.in_order(pieces):
            pass
        return result[: len(x)]

    def _multiply(self, tiles: NDArray[np.float32], rows: Rows, start: int, stop: int, result: NDArray[np.float32]) -> None:
        """Columns `start` to `stop` of `result`; see `ggpy.kernels.linear` for the kernel's words."""
        weights, k = np.ascontiguousarray(widened(rows.read(start, stop))), rows.n_columns
        scratch = np.empty(scratch_bytes("F32", k, tiles.shape[1]) + LINE, np.uint8)
        count = np.array([len(result), 0], np.int64)  # tokens, and the counter of claims
        words = (
            weights.ctypes.data, 4 * k, stop - start, k, tiles.ctypes.data,
            result.ctypes.data + 4 * start, 4 * rows.n_rows, count.ctypes.data, count.ctypes.data + 8,
            scratch.ctypes.data + -scratch.ctypes.data % LINE, 0, 0, 0, 0, 0,
        )  # fmt: skip
        run_kernel(self._kernel, np.array(words, np.int64))
