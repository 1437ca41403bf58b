"""Quantizing layer by layer: every matrix on the inputs that reach it through what was quantized before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BlockFormat, dequantize
from ggpy.errors import CheckpointError, GGPyError, printable
from ggpy.quantize.calibration import EMBEDDING, OUTPUT, Inputs, Matrix, named
from ggpy.quantize.products import Array, Products
from ggpy.quantize.scratch import Place, Scratch
from ggpy.quantize.statistics import GramSums, SquareSums
from ggpy.quantize.ways import Seen, Way

OnMatrix = Callable[[str, int], None]


@dataclass
class Quantized:
    """What became of a model's tensors. places: where their blocks lie, by name. failed: names of those whose weights the format cannot
    hold. importance: float32 (columns,) of those that are still to be encoded, as the head. kept: how many matrices got their blocks by
    each way of rounding."""

    places: dict[str, Place] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    importance: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)


class Sequential:
    """A `Look` that quantizes what it is shown. formats: of the tensors to quantize, by name; the others go on as they are.

    on_matrix(name, n): n more weights of a tensor are done. Blocks lie in `scratch`.
    """

    def __init__(
        self,
        formats: Mapping[str, BlockFormat],
        way: Way,
        products: Products,
        scratch: Scratch,
        *,
        threads: int = 1,
        on_matrix: OnMatrix = lambda name, n: None,
    ):
        self._formats, self._way, self._products, self._scratch = formats, way, products, scratch
        self._threads, self._on_matrix = threads, on_matrix
        self.result = Quantized()

    def __call__(self, inputs: Inputs, matrices: Sequence[Matrix]) -> Sequence[Array | None]:
        seen = None
        used: list[Array | None] = []
        for matrix in matrices:
            format = self._formats.get(matrix.name)
            if format is None:
                used.append(None)
            elif matrix.name in (EMBEDDING, OUTPUT):
                sums = SquareSums.zeros(matrix.cols)
                self._count(inputs, matrix, sums.add)
                self.result.importance[matrix.name] = sums.importance
                used.append(None)
            else:
                seen = self._see(inputs, matrix) if seen is None else seen
                used.append(self._quantize(matrix, format, seen))
            self._on_matrix(matrix.name, matrix.rows * matrix.cols)
        return used

    def _see(self, inputs: Inputs, matrix: Matrix) -> Seen:
        """What the way of rounding wants to know of the inputs of all matrices that share them."""
        if not self._way.needs_gram(len(inputs.x), matrix.cols):
            sums = SquareSums.zeros(matrix.cols)
            self._count(inputs, matrix, sums.add)
            return Seen(sums.importance if sums.tokens else None)
        held_out = inputs.units[-1:] if self._way.held_out and len(inputs.units) > 1 else ()
        counted = inputs.units[: len(inputs.units) - len(held_out)]
        grams = [GramSums.zeros(matrix.cols)]
        self._count(inputs, matrix, lambda x: grams[0].add(x, self._products), counted)
        if held_out:
            grams.append(GramSums.zeros(matrix.cols))
            self._count(inputs, matrix, lambda x: grams[1].add(x, self._products), held_out)
        drift = self._drift(inputs, counted) if inputs.exact is not None else None
        importance = grams[0].importance
        return Seen(importance, grams[0].gram(), drift, grams[1].gram() if held_out else None)

    def _count(self, inputs: Inputs, matrix: Matrix, add: Callable[[Array], None], units: Sequence[slice] | None = None) -> None:
        try:
            for unit in inputs.units if units is None else units:
                if unit.stop > unit.start:
                    add(inputs.x[unit])
        except GGPyError as error:
            raise named(matrix, error) from None

    def _drift(self, inputs: Inputs, units: Sequence[slice]) -> NDArray[np.float64]:
        """Σ (exact − x) xᵀ, float64 (n, n)."""
        assert inputs.exact is not None
        found = np.zeros((inputs.x.shape[1],) * 2)

        def take(rows: slice, columns: slice, piece: Array) -> None:
            found[rows, columns] += piece

        for unit in units:
            self._products.outer_sums(inputs.exact[unit] - inputs.x[unit], inputs.x[unit], take, symmetric=False)
        return found

    def _quantize(self, matrix: Matrix, format: BlockFormat, seen: Seen) -> Array:
        values = matrix.values()
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {printable(matrix.name)}: has weights that are not finite, which cannot be calibrated")
        blocks, by = self._way.quantize(values, seen, format, self._products, self._threads)
        self.result.kept[by] += 1
        place = self.result.places.get(matrix.name)
        if place is None:
            place = self.result.places[matrix.name] = self._scratch.reserve(matrix.tensor_rows, format.row_bytes(matrix.cols))
        self._scratch.write(place, matrix.first_row, blocks)
        decoded = dequantize(blocks, format)
        if not np.isfinite(decoded).all():  # too large for the scales, which is found once more, and said, by who writes the file
            self.result.failed.add(matrix.name)
            return values
        return decoded
