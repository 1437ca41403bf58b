"""AWQ in files that every runtime runs: columns that see large inputs are scaled up before they are rounded, and the scale is taken out of
the norm or the matrix before. The float model stays the same; its rounding changes.

Scales are powers of the mean input of each column, the exponent searched for each link over a calibration text, against the very formats
that the matrices are to get. A scale is kept only where it does better than none on tokens that were not searched on.
Source: Lin et al. 2024, "AWQ" (arXiv:2306.00978), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ggpy.arch import Architecture, Config
from ggpy.blocks import BlockFormat, dequantize
from ggpy.errors import GGPyError
from ggpy.quantize.calibration import CalibrationOps, Inputs, Matrix, named, run
from ggpy.quantize.links import Link, find_links
from ggpy.quantize.products import Array, Products
from ggpy.quantize.statistics import Gram, GramSums
from ggpy.quantize.texts import Chunks
from ggpy.runtime.encode import encode_rows, widened

_COARSE, _FINE = (0.25, 0.5, 0.75, 1.0), (0.125, 0.0625)
_ROWS = 256  # of each matrix, spread over it, that the search looks at
_LARGEST = 64.0  # ratio of a scale to 1: beyond, a norm's weights would get too small

OnMatrix = Callable[[str, int], None]


@dataclass(frozen=True)
class Scaled:
    """What the search found for a link. exponent: 0 where no scale did better than none. gain: squared output error over held-out tokens as
    a part of what it is without scales."""

    producer: str
    consumers: tuple[str, ...]
    exponent: float
    gain: float


@dataclass
class Folded:
    """tensors: those that change, whole, by name. links: what was found for each link."""

    tensors: dict[str, Matrix]
    links: list[Scaled]

    @property
    def kept(self) -> int:
        """How many links got scales."""
        return sum(link.exponent > 0 for link in self.links)

    @property
    def producers(self) -> frozenset[str]:
        """Tensors that give other columns than before."""
        return frozenset(link.producer for link in self.links if link.exponent)

    def __str__(self) -> str:
        """What was kept, and why, in a few words."""
        gains = [1 - link.gain for link in self.links if link.exponent]
        why = f", where they take {np.mean(gains):.0%} of the squared error on held-out tokens" if gains else ""
        return f"scales kept in {self.kept} of {len(self.links)} places{why}"


def fold(
    arch: Architecture,
    config: Config,
    tensors: Mapping[str, Matrix],
    chunks: Chunks,
    formats: Mapping[str, BlockFormat],
    products: Products,
    *,
    threads: int = 1,
    on_matrix: OnMatrix = lambda name, n: None,
) -> Folded:
    """Take a text through a model in its own weights, and fold the scales that are found into its tensors.

    formats: what each matrix is to become; one without stays a float, and no error of its own counts. on_matrix(name, n): the inputs of a
    tensor are looked at, of n weights. Raises as `calibration.run`.
    """
    links = find_links(arch, config, tensors)
    search = _Search(links, formats, products, threads, on_matrix)
    run(arch, config, tensors, CalibrationOps(config, chunks, products, search))
    return Folded({name: _changed(tensors[name], change) for name, change in search.changes.items()}, search.found)


@dataclass
class _Change:
    """What rows and columns of a tensor are multiplied with; None: 1 throughout."""

    rows: NDArray[np.float32] | None = None
    columns: NDArray[np.float32] | None = None


def _changed(tensor: Matrix, change: _Change) -> Matrix:
    def read(start: int, stop: int) -> Array:
        values = widened(tensor.read(start, stop))
        if change.rows is not None:
            values = values * change.rows[start:stop, None]
        return values if change.columns is None else values * change.columns

    return replace(tensor, read=read)


class _Search:
    """A `Look` that changes nothing and finds scales."""

    def __init__(self, links: list[Link], formats: Mapping[str, BlockFormat], products: Products, threads: int, on_matrix: OnMatrix):
        self._links = {_key(link.consumers): link for link in links}
        self._formats, self._products, self._threads, self._on_matrix = formats, products, threads, on_matrix
        self.changes: dict[str, _Change] = {}
        self.found: list[Scaled] = []

    def __call__(self, inputs: Inputs, matrices: Sequence[Matrix]) -> Sequence[Array | None]:
        link = self._links.get(_key(matrices))
        if link is not None and len(inputs.x):
            try:
                self._scale(link, inputs)
            except GGPyError as error:
                raise named(matrices[0], error) from None
        for matrix in matrices:
            self._on_matrix(matrix.name, matrix.rows * matrix.cols)
        return [None] * len(matrices)

    def _scale(self, link: Link, inputs: Inputs) -> None:
        parts = [
            (values, format)
            for matrix in link.consumers
            if (format := self._formats.get(matrix.name)) is not None and np.isfinite(values := _some_rows(matrix)).all()
        ]
        if not parts:
            return
        counted, judged = _apart(inputs.units)
        grams = [self._gram(inputs.x, units) for units in (counted, judged)]
        sizes = np.mean([np.abs(inputs.x[unit]).mean(0, dtype=np.float64) for unit in counted if unit.stop > unit.start], axis=0)
        if link.heads:
            sizes = _by_value(sizes, link).mean(axis=1)
        exponent = self._search(parts, sizes, link, grams[0])
        plain, best = (self._cost(parts, _columns(_scales(sizes, e), link), grams[1]) for e in (0.0, exponent))
        gain = best / plain if plain else 1.0
        if exponent == 0.0 or gain >= 1:
            exponent, gain = 0.0, 1.0
        self.found.append(Scaled(link.producer.name, tuple(matrix.name for matrix in link.consumers), exponent, gain))
        if exponent:
            self._fold(link, _scales(sizes, exponent))

    def _search(self, parts: list[tuple[Array, BlockFormat]], sizes: NDArray[np.float64], link: Link, gram: Gram) -> float:
        """The exponent that does best, in sixteenths: a coarse search, then around the best."""
        costs = {0.0: self._cost(parts, _columns(_scales(sizes, 0.0), link), gram)}

        def best() -> float:
            return min(costs, key=lambda exponent: costs[exponent])

        def tried(exponent: float) -> None:
            if 0 < exponent <= 1 and exponent not in costs:
                costs[exponent] = self._cost(parts, _columns(_scales(sizes, exponent), link), gram)

        for exponent in _COARSE:
            tried(exponent)
        for step in _FINE:
            middle = best()
            tried(middle - step)
            tried(middle + step)
        return best()

    def _cost(self, parts: list[tuple[Array, BlockFormat]], scales: Array, gram: Gram) -> float:
        """Σ over tokens of the squared error of the outputs, rounded with an importance matrix of the scaled inputs."""
        cost, importance = 0.0, (gram.importance / np.square(scales)).astype(np.float32)
        for values, format in parts:
            blocks = encode_rows(values * scales, format, self._threads, importance=importance)
            errors = dequantize(blocks, format) / scales - values
            (moved,) = self._products.linear(errors, gram.matrix.astype(np.float32))
            cost += float(np.einsum("ij,ij->i", errors, moved, dtype=np.float64).sum())
        return cost if np.isfinite(cost) else np.inf

    def _gram(self, x: Array, units: Sequence[slice]) -> Gram:
        sums = GramSums.zeros(x.shape[1])
        for unit in units:
            if unit.stop > unit.start:
                sums.add(x[unit], self._products)
        return sums.gram()

    def _fold(self, link: Link, scales: Array) -> None:
        columns, inverse = _columns(scales, link), np.float32(1) / scales
        for name in dict.fromkeys(matrix.name for matrix in link.consumers):
            self._multiply(name, columns=columns)
        producer = link.producer
        if link.is_norm:
            self._multiply(producer.name, columns=inverse)
            return
        rows = np.ones(producer.tensor_rows, np.float32)
        rows[producer.first_row : producer.first_row + producer.rows] = inverse
        self._multiply(producer.name, rows=rows)
        if producer.bias is not None:
            self._multiply(producer.name.removesuffix("weight") + "bias", columns=inverse)

    def _multiply(self, name: str, *, rows: Array | None = None, columns: Array | None = None) -> None:
        change = self.changes.setdefault(name, _Change())
        if rows is not None:
            change.rows = rows if change.rows is None else change.rows * rows
        if columns is not None:
            change.columns = columns if change.columns is None else change.columns * columns


def _apart(units: Sequence[slice]) -> tuple[Sequence[slice], Sequence[slice]]:
    """Tokens to search on and tokens to judge by: the last unit, or the second half of the only one."""
    if len(units) > 1:
        return units[:-1], units[-1:]
    middle = (units[0].start + units[0].stop) // 2
    return (slice(units[0].start, middle),), (slice(middle, units[0].stop),)


def _key(matrices: Sequence[Matrix]) -> tuple[tuple[str, int], ...]:
    return tuple((matrix.name, matrix.first_row) for matrix in matrices)


def _some_rows(matrix: Matrix) -> Array:
    values = matrix.values()
    return values if len(values) <= _ROWS else values[np.linspace(0, len(values) - 1, _ROWS).astype(int)]


def _scales(sizes: NDArray[np.float64], exponent: float) -> Array:
    """float32 (n,): sizes ** exponent, their extremes as far from 1 on either side, and none further than `_LARGEST`."""
    usable = np.maximum(sizes, max(float(sizes.max()) * 1e-4, 1e-30))
    scales = usable**exponent
    scales /= np.sqrt(scales.max() * scales.min())
    return np.clip(scales, 1 / _LARGEST, _LARGEST).astype(np.float32)


def _by_value(columns: np.ndarray, link: Link) -> np.ndarray:
    """(heads * head_dim, query heads of each) of what is given for every column behind attention."""
    found = columns.reshape(link.heads, -1, link.head_dim)
    return found.swapaxes(1, 2).reshape(link.heads * link.head_dim, -1)


def _columns(scales: Array, link: Link) -> Array:
    """The scale of every column of the consumers, from one for every row of the producer."""
    cols = link.consumers[0].cols
    if not link.heads:
        return scales
    each = scales.reshape(link.heads, 1, link.head_dim)
    return np.ascontiguousarray(np.broadcast_to(each, (link.heads, cols // len(scales), link.head_dim)).reshape(-1))
