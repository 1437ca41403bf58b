"""Counting the inputs of every matrix of a model as it is, for a file of statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ggpy.errors import GGPyError
from ggpy.quantize.calibration import EMBEDDING, OUTPUT, Inputs, Matrix, named
from ggpy.quantize.products import Array, Products
from ggpy.quantize.scratch import Place, Scratch
from ggpy.quantize.statistics import GramSums, SquareSums


@dataclass
class Counted:
    """What was counted of inputs that several tensors share. names: of the tensors. squares: in units, int64 (columns,), of each matrix of
    a stack; tokens: of each. grams: where the units of each matrix's Σ x xᵀ lie, on and right of the diagonal, row after row, as int64."""

    names: tuple[str, ...]
    columns: int
    squares: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    grams: list[Place] = field(default_factory=list)


class Counting:
    """A `Look` that counts and changes nothing. grams: Σ x xᵀ, not Σ x² alone. head: count the inputs of the output matrix too.

    on_matrix(name, n): the inputs of a tensor are counted, of n weights.
    """

    def __init__(
        self,
        products: Products,
        scratch: Scratch,
        *,
        grams: bool = False,
        head: bool = False,
        on_matrix: Callable[[str, int], None] = lambda name, n: None,
    ):
        self._products, self._scratch, self._grams, self._head, self._on_matrix = products, scratch, grams, head, on_matrix
        self._found: dict[tuple[str, ...], Counted] = {}

    @property
    def found(self) -> list[Counted]:
        """In the order of the forward pass."""
        return list(self._found.values())

    def __call__(self, inputs: Inputs, matrices: Sequence[Matrix]) -> Sequence[Array | None]:
        names = tuple(dict.fromkeys(matrix.name for matrix in matrices))
        if self._head or names[0] not in (EMBEDDING, OUTPUT):
            counted = self._found.setdefault(names, Counted(names, matrices[0].cols))
            try:
                self._count(inputs, counted)
            except GGPyError as error:
                raise named(matrices[0], error) from None
        for matrix in matrices:
            self._on_matrix(matrix.name, matrix.rows * matrix.cols)
        return [None] * len(matrices)

    def _count(self, inputs: Inputs, counted: Counted) -> None:
        squares = SquareSums.zeros(counted.columns)
        grams = GramSums.zeros(counted.columns) if self._grams else None
        for unit in inputs.units:
            if unit.stop > unit.start:
                squares.add(inputs.x[unit])
                if grams is not None:
                    grams.add(inputs.x[unit], self._products)
        counted.squares.append(squares.units)
        counted.tokens.append(squares.tokens)
        if grams is not None:
            counted.grams.append(self._scratch.keep(packed(grams.units)))


def packed(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """What lies on and right of the diagonal of (n, n), row after row: (n * (n + 1) / 2,)."""
    return np.concatenate([row[i:] for i, row in enumerate(units)])


def unpacked(values: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """(n, n) of what `packed` gives, zeros left of the diagonal."""
    units, at = np.zeros((columns, columns), np.int64), 0
    for i in range(columns):
        units[i, i:] = values[at : at + columns - i]
        at += columns - i
    return units
