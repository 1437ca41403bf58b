"""NVFP4: 64 values in 4 sub-blocks of 16, each with an 8-bit float (E4M3 without its sign); four-bit floats (E2M1).

value = (scale / 2) * doubled[q]. The float32 that scales a whole tensor is a tensor of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks.block_format import U8, BlockFormat, Blocks, Field, Values, split_fields
from ggpy.blocks.fp4 import DOUBLED
from ggpy.blocks.planes import unpack_planes

FIELDS = (Field("d", U8, 4), Field("qs", U8, 32))
SUB_BLOCKS, SUB_VALUES = 4, 16
BIAS, MANTISSA_BITS = 7, 3
NAN = 0x7F


def decode(blocks: Blocks) -> Values:
    d, qs = split_fields(blocks, FIELDS)
    codes = unpack_planes(qs, 4, row=8).reshape(-1, SUB_BLOCKS, SUB_VALUES)
    return (_half_scale(d)[..., None] * DOUBLED[codes]).reshape(-1, SUB_BLOCKS * SUB_VALUES)


def _half_scale(d: np.ndarray) -> NDArray[np.float32]:
    """Half of what an E4M3 byte stands for, its sign left out; 0 for the byte 0x7F, NaN in the specification, as in ggml."""
    exponent, mantissa = ((d >> MANTISSA_BITS) & 15).astype(np.int32), (d & 7).astype(np.float32)
    denormal = np.ldexp(mantissa, 1 - BIAS - MANTISSA_BITS)
    normal = np.ldexp(1 + mantissa / 8, exponent - BIAS)
    return np.where(d == NAN, np.float32(0), np.where(exponent == 0, denormal, normal) * np.float32(0.5))


NVFP4 = BlockFormat("NVFP4", 40, 64, FIELDS, decode)
