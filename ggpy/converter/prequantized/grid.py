"""Weights on a uniform grid, value = scale · (quant − zero), and the block formats that hold such a grid as it is.

Q4_0, Q5_0 and Q8_0 keep whole numbers times a half-precision scale: they hold a grid whose zeros were subtracted, if the numbers are small
enough. Q4_1 and Q5_1 keep the quants and scale · −zero, the latter in half precision: exact where that product is, else up to its rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks import BLOCKS, q4_0, q4_1, q5_0, q5_1, q8_0
from ggpy.blocks.block_format import join_fields
from ggpy.blocks.planes import pack_bits, pack_planes

_BLOCK = 32  # values of a block, in all formats here
_F16_MAX = 65504.0
_LEVELS = {"Q4_0": 8, "Q5_0": 16, "Q8_0": 128}  # a format holds -n to n - 1
_QUANTS = {"Q4_1": 15, "Q5_1": 31}  # a format holds 0 to n


@dataclass(frozen=True)
class Grid:
    """Some rows of a quantized matrix.

    quants: uint8 or int8 (rows, columns). scales: float32 (rows, groups). zeros: int16 (rows, groups).
    group: columns that share a scale, neighbours; the last group may be shorter. group_of: (columns,) the group of each column where they
    are no neighbours; `group` means nothing then.
    """

    quants: np.ndarray
    scales: NDArray[np.float32]
    zeros: NDArray[np.int16]
    group: int
    group_of: np.ndarray | None = None

    def values(self) -> NDArray[np.float32]:
        """float32 (rows, columns): whole numbers times scales, each product rounded once."""
        rows, columns = self.quants.shape
        if self.group_of is not None or columns % self.group:
            group_of = np.arange(columns) // self.group if self.group_of is None else self.group_of
            levels = (self.quants - self.zeros[:, group_of]).astype(np.float32)
            levels *= self.scales[:, group_of]
            return levels
        levels = (self.quants.reshape(rows, -1, self.group) - self.zeros[:, :, None]).astype(np.float32)
        levels *= self.scales[:, :, None]
        return levels.reshape(rows, columns)

    def blocks(self, format: str) -> NDArray[np.uint8]:
        """uint8 (rows, row_bytes): the same quants in blocks of a format that `Span.fits` lists."""
        rows, columns = self.quants.shape
        quants, zeros = self.quants.reshape(-1, _BLOCK), self._per_block(self.zeros)  # (n_blocks, 32), (n_blocks, 1)
        with np.errstate(under="ignore"):
            d = self._per_block(self.scales.astype(np.float16))
            m = self._per_block((self.scales * -self.zeros.astype(np.float32)).astype(np.float16)) if format in _QUANTS else None
        levels = quants if m is not None else quants - (zeros - np.int16(_LEVELS[format] % 128))
        return _PACKED[format](d, m, levels.astype(np.uint8)).reshape(rows, columns // _BLOCK * BLOCKS[format].block_bytes)

    def _per_block(self, per_group: np.ndarray) -> np.ndarray:
        """(rows, groups) -> (n_blocks, 1)"""
        per_block = np.repeat(per_group, self.group // _BLOCK, axis=1)
        return per_block[:, : self.quants.shape[1] // _BLOCK].reshape(-1, 1)


_PACKED: dict[str, Callable[..., NDArray[np.uint8]]] = {
    "Q4_0": lambda d, m, q: join_fields(q4_0.FIELDS, d, pack_planes(q, 4)),
    "Q4_1": lambda d, m, q: join_fields(q4_1.FIELDS, d, m, pack_planes(q, 4)),
    "Q5_0": lambda d, m, q: join_fields(q5_0.FIELDS, d, pack_bits(q >> 4), pack_planes(q & 15, 4)),
    "Q5_1": lambda d, m, q: join_fields(q5_1.FIELDS, d, m, pack_bits(q >> 4), pack_planes(q & 15, 4)),
    "Q8_0": lambda d, m, q: join_fields(q8_0.FIELDS, d, q.view(np.int8)),
}
"""Scales and minimums, (n_blocks, 1), and quants from 0 on, those of Q8_0 as the bytes of int8, -> blocks."""


@dataclass(frozen=True)
class Span:
    """What all rows of a quantized matrix have in common, and so which formats hold it.

    low, high: the smallest and the largest quant there may be. low_zero, high_zero: of the zeros that there are.
    neighbours: whether the columns of a group lie side by side, and groups are whole blocks.
    finite: whether scales, and scales · zeros, are finite in half precision; exact_scales: whether scales lose nothing in it;
    exact_minimums: whether scales · zeros lose nothing in it either.
    """

    low: int
    high: int
    low_zero: int
    high_zero: int
    neighbours: bool
    finite: bool
    exact_scales: bool
    exact_minimums: bool

    @property
    def fits(self) -> Mapping[str, bool]:
        """The block formats that hold the grid, the smallest first: whether bit for bit, else up to one rounding to half precision."""
        if not (self.neighbours and self.finite):
            return {}
        found = {}
        for format in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
            if format in _QUANTS and self.low >= 0 and self.high <= _QUANTS[format]:
                found[format] = self.exact_scales and self.exact_minimums
            n = _LEVELS.get(format, 0)
            if -n <= self.low - self.high_zero and self.high - self.low_zero < n:
                found[format] = self.exact_scales
        return found


def measure_span(low: int, high: int, scales: np.ndarray, zeros: np.ndarray, columns: int, group: int, neighbours: bool) -> Span:
    """The span of a matrix from all its scales, float32 (rows, groups), and zeros, int16, of the same shape or broadcast to it."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        minimums = scales * zeros.astype(np.float32)
        finite = bool((np.abs(scales) <= _F16_MAX).all() and (np.abs(minimums) <= _F16_MAX).all())
        exact, exact_minimums = (np.array_equal(x.astype(np.float16).astype(np.float32), x) for x in (scales, minimums))
    zero = (int(zeros.min()), int(zeros.max())) if zeros.size else (0, 0)
    whole = neighbours and group % _BLOCK == 0 and columns % _BLOCK == 0
    return Span(low, high, *zero, whole, finite and bool(scales.size), exact, exact_minimums)
