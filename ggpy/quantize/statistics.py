"""What is counted of a matrix's inputs x: sums of x² of each column, or the whole Gram matrix Σ x xᵀ, twice which is GPTQ's Hessian.

Sums are integers in units of 2^-24: tokens are multiplied in float32, some thousand at a time, and each such sum is rounded to that grid.
Integers add up to the same in whatever order, so texts that were counted apart, on as many machines as wished, make the same bytes as all
of them counted at once. A sum may be as large as 2^38 (2.7e11), as of 10^10 inputs whose mean square is 16; beyond, it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggpy.errors import GGPyError, ModelError
from ggpy.quantize.products import Products

UNIT = 2.0**-24
UNIT_TOKENS = 4096
"""Tokens that are summed in float32 at the most: whole chunks of a text, and never of two."""
LARGEST = 2.0**38
_SQUARES_AT_ONCE = 64


@dataclass(frozen=True)
class Gram:
    """matrix: float64 or float32 (n, n), Σ x xᵀ over `tokens` inputs x of n values."""

    matrix: np.ndarray
    tokens: int

    @property
    def importance(self) -> NDArray[np.float32]:
        """Mean x², float32 (n,): what an importance matrix has of it; 1 throughout where there were no inputs."""
        return mean_squares(np.diagonal(self.matrix), self.tokens)


def mean_squares(squares: np.ndarray, tokens: int) -> NDArray[np.float32]:
    """float32 (n,) from Σ x²; 1 throughout where there were no inputs."""
    return (squares / tokens).astype(np.float32) if tokens else np.ones(len(squares), np.float32)


class SquareSums:
    """Σ x² of n columns. units: int64 (n,), in units of `UNIT`. tokens: how many x."""

    def __init__(self, units: NDArray[np.int64], tokens: int = 0):
        self.units, self.tokens = units, tokens

    @classmethod
    def zeros(cls, columns: int) -> SquareSums:
        return cls(np.zeros(columns, np.int64))

    @property
    def squares(self) -> NDArray[np.float64]:
        """Σ x², float64 (n,)."""
        return np.multiply(self.units, UNIT, dtype=np.float64)

    @property
    def importance(self) -> NDArray[np.float32]:
        """Mean x², float32 (n,)."""
        return mean_squares(self.squares, self.tokens)

    def add(self, x: NDArray[np.float32]) -> None:
        """Count the inputs x, (tokens, n), of a unit of text. Raises ModelError where they are not finite, GGPyError where they are too
        large."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = _squares(x)
        require_countable(found, self.squares)
        self.units += np.rint(found / UNIT).astype(np.int64)
        self.tokens += len(x)

    def merge(self, other: SquareSums) -> None:
        """Add what was counted elsewhere."""
        require_countable(other.squares, self.squares)
        self.units += other.units
        self.tokens += other.tokens


class GramSums:
    """Σ x xᵀ of n columns. units: int64 (n, n), in units of `UNIT`; what counts lies on and right of the diagonal. tokens: how many x."""

    def __init__(self, units: NDArray[np.int64], tokens: int = 0):
        self.units, self.tokens = units, tokens

    @classmethod
    def zeros(cls, columns: int) -> GramSums:
        return cls(np.zeros((columns, columns), np.int64))

    @property
    def squares(self) -> NDArray[np.float64]:
        """Σ x², float64 (n,)."""
        return np.multiply(np.diagonal(self.units), UNIT, dtype=np.float64)

    @property
    def importance(self) -> NDArray[np.float32]:
        """Mean x², float32 (n,)."""
        return mean_squares(self.squares, self.tokens)

    def add(self, x: NDArray[np.float32], products: Products) -> None:
        """Count the inputs x, (tokens, n), of a unit of text. Raises as `SquareSums.add`."""
        with np.errstate(over="ignore", invalid="ignore"):
            require_countable(_squares(x), self.squares)  # no other sum can be larger

        def take(rows: slice, columns: slice, piece: NDArray[np.float32]) -> None:
            self.units[rows, columns] += np.rint(np.multiply(piece, 1 / UNIT, dtype=np.float64)).astype(np.int64)

        products.outer_sums(x, x, take, symmetric=True)
        self.tokens += len(x)

    def merge(self, other: GramSums) -> None:
        """Add what was counted elsewhere."""
        require_countable(other.squares, self.squares)
        self.units += other.units
        self.tokens += other.tokens

    def gram(self) -> Gram:
        """What was counted, as a whole symmetric float64 matrix, in the memory of `units`, which are no more."""
        units, matrix = self.units, self.units.view(np.float64)
        for start in range(0, len(matrix), _SQUARES_AT_ONCE):
            rows = slice(start, start + _SQUARES_AT_ONCE)
            matrix[rows] = units[rows] * UNIT
        self.units = np.zeros((0, 0), np.int64)
        for start in range(0, len(matrix), _SQUARES_AT_ONCE):
            stop = start + _SQUARES_AT_ONCE
            corner = np.triu(matrix[start:stop, start:stop])
            matrix[start:stop, start:stop] = corner + np.triu(corner, 1).T
            matrix[stop:, start:stop] = matrix[start:stop, stop:].T
        return Gram(matrix, self.tokens)


def _squares(x: NDArray[np.float32]) -> NDArray[np.float64]:
    found = np.zeros(x.shape[1])
    for start in range(0, len(x), _SQUARES_AT_ONCE):
        piece = x[start : start + _SQUARES_AT_ONCE]
        found += (piece * piece).sum(0, dtype=np.float64)
    return found


def require_countable(squares: np.ndarray, before: np.ndarray) -> None:
    """ModelError for sums of squares that are not finite, GGPyError for those that with what was there `before` are beyond `LARGEST`."""
    if not np.isfinite(squares).all():
        column = int(np.argmin(np.isfinite(squares)))
        raise ModelError(f"input {column} is not finite over the calibration text")
    if (largest := float((squares + before).max(initial=0.0))) > LARGEST:
        raise GGPyError(f"its squared inputs add up to {largest:.3g}, expected at most {LARGEST:.3g}: calibrate on fewer tokens")
