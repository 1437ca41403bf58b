"""Matrix products with weights that are read a piece at a time, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ggpy.converter.stream import Workers
from ggpy.runtime.encode import widened
from ggpy.runtime.float_products import multiply, padded_tokens, product_kernel, tiled

_PIECE_VALUES = 1 << 20


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
        self._kernel = product_kernel()

    def __enter__(self) -> Products:
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.close()

    def __call__(self, x: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """x @ rows.T: float32 (n, n_rows) from x float32 (n, n_columns)."""
        tiles = tiled(x)
        result = np.empty((padded_tokens(len(x)), rows.n_rows), np.float32)
        step = max(1, _PIECE_VALUES // rows.n_columns)
        pieces = (
            partial(self._multiply, tiles, rows, start, min(start + step, rows.n_rows), result) for start in range(0, rows.n_rows, step)
        )
        for _ in self._workers.in_order(pieces):
            pass
        return result[: len(x)]

    def _multiply(self, tiles: NDArray[np.float32], rows: Rows, start: int, stop: int, result: NDArray[np.float32]) -> None:
        """Columns `start` to `stop` of `result`."""
        multiply(self._kernel, tiles, np.ascontiguousarray(widened(rows.read(start, stop))), result, start)
