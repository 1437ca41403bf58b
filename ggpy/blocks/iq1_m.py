"""IQ1_M: 256 values in 16 sub-blocks of 16, each with a 3-bit scale; groups of 8 from the grid of IQ1_S, each with a shift.

value = (d * (2 * scale + 1)) * (grid value + shift), the shift being 1/8 or -1/8; d is kept in the top bits of the scales
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks.block_format import F16, U8, U16, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.grids import IQ1_S as GRID
from ggpy.blocks.iq1_s import SHIFT
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("qs", U8, 32), Field("qh", U8, 16), Field("scales", U8, 8))
SCALE_SHIFTS = np.arange(0, 12, 3, dtype=np.uint16)  # four scales in a word; in its top four bits a quarter of d
QUARTERS = np.array([12, 8, 4, 0], np.uint16)  # what each quarter is shifted down by


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    qs, qh, scales = split_fields(blocks, FIELDS)
    words = np.ascontiguousarray(scales).view(U16)  # (n, 4)
    d = np.bitwise_or.reduce((words & 0xF000) >> QUARTERS, axis=1, keepdims=True).astype(U16).view(F16)
    scale = d.astype(np.float32) * (2 * ((words[..., None] >> SCALE_SHIFTS) & 7) + 1).reshape(-1, 16).astype(np.float32)
    nibbles = unpack_planes(qh, 4, row=1).astype(np.uint16)  # (n, 32): three bits of the index, one of the shift
    shift = np.where(nibbles >> 3, -SHIFT, SHIFT)
    values = GRID.groups[qs | ((nibbles & 7) << 8)] + shift[..., None]  # (n, 32, 8)
    return (scale[..., None] * values.reshape(-1, 16, 16)).reshape(-1, 256)


IQ1_M = BlockFormat("IQ1_M", 29, 256, FIELDS, decode)
