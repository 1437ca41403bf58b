"""The grid under a block: every value is scale * level + offset, with few levels and one scale and offset for each sub-block.

What chooses quants (a scale search, GPTQ) works on the parts of a block and leaves packing them to its format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Parts(NamedTuple):
    """Blocks taken apart. value = (d * scale) * level[quant] - (dmin * min), in float32.

    d, dmin: float16 (n, 1). scales, mins: int32 (n, sub-blocks). quants: uint8 (n, block_values), indices of the grid's levels.
    """

    d: NDArray[np.float16]
    dmin: NDArray[np.float16]
    scales: NDArray[np.int32]
    mins: NDArray[np.int32]
    quants: np.ndarray


@dataclass(frozen=True, eq=False)
class Grid:
    """Which values blocks of a format can hold.

    levels: float32 (k,), ascending: what a quant can stand for.
    sub_values: how many neighbouring values share a scale and a min.
    scales, mins: the multiples of d and of dmin that a sub-block may have. A format that stores its one scale itself has the multiple 1;
        one that stores an offset to add, the min -1; one without offsets, the min 0.
    split: uint8 (n, block_bytes) -> Parts. join: the inverse, bit for bit.
    """

    levels: NDArray[np.float32]
    sub_values: int
    scales: range
    mins: range
    split: Callable[[NDArray[np.uint8]], Parts]
    join: Callable[[Parts], NDArray[np.uint8]]

    @property
    def has_sub_scales(self) -> bool:
        """Whether a block has a scale for each of several sub-blocks, as multiples of one float16."""
        return len(self.scales) > 1

    @property
    def has_mins(self) -> bool:
        return self.mins != NO_MINS

    @np.errstate(all="ignore")
    def unpack(self, blocks: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """scale, offset, float32 (n, block_values), and quants, uint8 alike, of blocks, uint8 (n, block_bytes).

        scale * levels[quants] + offset, in float32, is what `decode` gives, bit for bit.
        """
        parts = self.split(blocks)
        scale, offset = sub_scales(parts)
        return np.repeat(scale, self.sub_values, axis=1), np.repeat(offset, self.sub_values, axis=1), parts.quants

    def with_quants(self, blocks: NDArray[np.uint8], quants: np.ndarray) -> NDArray[np.uint8]:
        """`blocks` with other quants, integers (n, block_values) below len(levels), and the same scales."""
        return self.join(self.split(blocks)._replace(quants=quants.astype(np.uint8)))


ONE_SCALE = range(1, 2)
NO_MINS, ONE_OFFSET = range(1), range(-1, 0)


@np.errstate(all="ignore")
def sub_scales(parts: Parts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """scale and offset of each sub-block, float32 (n, sub-blocks).

    Without a min the offset is -0, the only number whose addition changes nothing, not even the sign of a zero.
    """
    return parts.d.astype(np.float32) * parts.scales.astype(np.float32), -(parts.dmin.astype(np.float32) * parts.mins.astype(np.float32))


def single_scale(d: NDArray[np.float16], quants: np.ndarray) -> Parts:
    """Parts of blocks with nothing but a scale."""
    zeros = np.zeros(d.shape, np.int32)
    return Parts(d, zeros.astype(np.float16), zeros + 1, zeros, quants)


def single_offset(d: NDArray[np.float16], m: NDArray[np.float16], quants: np.ndarray) -> Parts:
    """Parts of blocks with one scale and one offset to be added."""
    ones = np.ones(d.shape, np.int32)
    return Parts(d, m, ones, -ones, quants)


def scales_only(d: NDArray[np.float16], scales: np.ndarray, quants: np.ndarray) -> Parts:
    """Parts of super-blocks whose sub-blocks have scales and no mins."""
    return Parts(d, np.zeros(d.shape, np.float16), scales.astype(np.int32), np.zeros(scales.shape, np.int32), quants)


def ladder(first: int, last: int) -> NDArray[np.float32]:
    """The levels first, first + 1 .. last."""
    return np.arange(first, last + 1, dtype=np.float32)
