"""MXFP4: 32 four-bit floats (E2M1) under a power of two (E8M0), as the OCP Microscaling specification has it.

value = 2**(e - 128) * doubled[q]; e = 255, NaN in the specification, is 2**127 as in ggml.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.blocks.block_format import U8, BlockFormat, Blocks, Field, Values, join_fields, require_finite, split_fields
from ggpy.blocks.fp4 import DOUBLED, nearest_code
from ggpy.blocks.planes import pack_planes, unpack_planes

FIELDS = (Field("e", U8, 1), Field("qs", U8, 16))
BIAS = 127
LARGEST_EXPONENT = 2  # of E2M1, whose largest value is 1.5 * 2**2


@np.errstate(all="ignore")
def decode(blocks: Blocks) -> Values:
    e, qs = split_fields(blocks, FIELDS)
    return _half_power(e) * DOUBLED[unpack_planes(qs, 4)]


@np.errstate(all="ignore")
def encode(values: Values) -> Blocks:
    """The exponent is that of the largest magnitude less 2, so that magnitudes of 1.75 times that power and more are cut to 1.5 times.

    ggml takes the exponent from a float32 logarithm: just below a power of two it may be that of the power. For magnitudes below
    2**-125 it wraps to a byte, and all quants are 0.
    """
    require_finite(values, "MXFP4")
    peak = np.abs(values).max(axis=1, keepdims=True)
    exponent = np.floor(np.log2(peak.astype(np.float64)).astype(np.float32))
    e = np.where(peak > 0, exponent - LARGEST_EXPONENT + BIAS, np.float32(0)).astype(np.int32).astype(np.uint8)
    return join_fields(FIELDS, e, pack_planes(nearest_code(values, _half_power(e)), 4))


def _half_power(e: np.ndarray) -> NDArray[np.float32]:
    """2**(e - 128), the scale of doubled values."""
    return np.ldexp(np.float32(1), e.astype(np.int32) - (BIAS + 1))


MXFP4 = BlockFormat("MXFP4", 39, 32, FIELDS, decode, encode)
