"""What every method here takes and gives: a matrix and activations in; the values a runtime would compute with, and true bits, out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

SCALE_BITS = 16  # scales are half-precision numbers, and rounded to them before anything is rounded by them
INDEX_BITS = 16  # the number of a column


@dataclass(frozen=True)
class Quantized:
    """A matrix after quantization.

    values: float32 (rows, cols), what the stored numbers stand for. bits: per weight, everything counted that has to be stored: quants,
    scales, zero points, outliers and where they are. product(x): x @ values.T, float32 (tokens, rows) from (tokens, cols), of a method that
    quantizes activations too; None where activations stay as they are.
    """

    values: Matrix
    bits: float
    product: Callable[[Matrix], Matrix] | None = None

    def apply(self, x: Matrix) -> Matrix:
        """What the layer gives for activations float32 (tokens, cols): float32 (tokens, rows)."""
        return x @ self.values.T if self.product is None else self.product(x)


class Quantize(Protocol):
    """A method. weights: float32 (rows, cols). activations: float32 (tokens, cols), what came into the layer on a calibration text; methods
    that look at weights alone take and ignore them. Raises DoesNotFit where the method has no place for such rows, ValueError for shapes
    that do not match, NaN and infinity."""

    def __call__(self, weights: Matrix, activations: Matrix, /) -> Quantized: ...


class DoesNotFit(ValueError):
    """Rows of a length that a method's groups or blocks do not divide."""


def check(weights: Matrix, activations: Matrix) -> None:
    """ValueError unless both are finite matrices with as many columns."""
    if weights.ndim != 2 or activations.ndim != 2 or weights.shape[1] != activations.shape[1] or 0 in (*weights.shape, *activations.shape):
        raise ValueError(
            f"weights {weights.shape} and activations {activations.shape}: expected (rows, cols) and (tokens, cols), none of them 0"
        )
    for name, values in (("weights", weights), ("activations", activations)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} hold NaN or infinity; expected finite numbers")


def in_groups(weights: Matrix, group: int | None) -> Matrix:
    """float32 (rows, groups, group): neighbours in a row, `group` at a time; None: the whole row is one group."""
    rows, cols = weights.shape
    n = group or cols
    if cols % n:
        raise DoesNotFit(f"rows of {cols} values are not whole groups of {n}")
    return weights.reshape(rows, cols // n, n)
