"""One tensor of an open file: its place in the table and its bytes where mmap put them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ggpy.blocks import BlockFormat, dequantize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in an open GGUF file.

    shape: rows first, as NumPy has it (the file lists dimensions from the innermost).
    format: how a row's values lie in blocks.
    offset: of its first byte in the file. n_bytes: of its data, without padding.
    """

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    offset: int
    n_bytes: int
    _view: Callable[[int, int], np.ndarray] = field(repr=False, compare=False)

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def data(self) -> np.ndarray:
        """The blocks, uint8 (rows, row_bytes), read-only: the mapped file itself, nothing is copied. GGUFError once the file is closed."""
        rows = math.prod(self.shape[:-1])
        return self._view(self.offset, self.n_bytes).reshape(rows, self.n_bytes // rows if rows else self.format.row_bytes(self.shape[-1]))

    def dequantize(self) -> np.ndarray:
        """The values as a new float32 array of `shape`; ValueError for a format that cannot be decoded."""
        return dequantize(self.data, self.format).reshape(self.shape)
