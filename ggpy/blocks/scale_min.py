"""Super-blocks of Q4_K and Q5_K: 8 sub-blocks of 32 values, each with a 6-bit scale and a 6-bit min under one float16 pair."""

from __future__ import annotations

import numpy as np

from ggpy.blocks.rounding import nearest_int, running_sum
from ggpy.blocks.search import Search, affine_scale, positive_scale
from ggpy.blocks.weighting import weights_of

SUB_BLOCKS, SUB_VALUES = 8, 32
_SIX_BITS = 63


def unpack_scale_min(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 12) -> 6-bit scales and mins, uint8 (n, 8) each.

    Bytes 0..3 hold scales 0..3 and bytes 4..7 mins 0..3 in their low six bits; bytes 8..11 hold the low four bits of scales 4..7 and,
    above them, of mins 4..7, whose high two bits are the top bits of bytes 0..3 and 4..7.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate((first & 63, (third & 0x0F) | ((first >> 6) << 4)), axis=1)
    mins = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    return scales, mins


def pack_scale_min(scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
    """uint8 (n, 12) from 6-bit scales and mins, uint8 (n, 8) each: the inverse of `unpack_scale_min`."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = mins[:, :4] | ((mins[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 0x0F) | ((mins[:, 4:] & 0x0F) << 4)
    return np.concatenate((first, second, third), axis=1)


def apply_scale_min(d: np.ndarray, dmin: np.ndarray, packed: np.ndarray, quants: np.ndarray) -> np.ndarray:
    """float32 (n, 256) of float16 (n, 1) d and dmin, packed scales and mins (n, 12), quants (n, 256)."""
    scales, mins = unpack_scale_min(packed)
    scale = (d.astype(np.float32) * scales)[..., None]
    minimum = (dmin.astype(np.float32) * mins)[..., None]
    return (scale * quants.reshape(-1, SUB_BLOCKS, SUB_VALUES) - minimum).reshape(quants.shape)


def find_scale_min(values: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The encoding of `values`, float32 (n, 256): float16 (n, 1) d and dmin, packed scales and mins (n, 12), quants int32 (n, 256).

    A value x of a sub-block has the weight rms + |x|, rms being that of the sub-block.
    """
    x = values.reshape(-1, SUB_VALUES)
    rms = np.sqrt(running_sum(x * x) / np.float32(SUB_VALUES))
    scale, minimum, quants = affine_scale(x, rms[:, None] + np.abs(x), search)

    unit, scales = in_units(scale.reshape(-1, SUB_BLOCKS), _SIX_BITS)
    unit_min, mins = in_units(minimum.reshape(-1, SUB_BLOCKS), _SIX_BITS)
    packed = pack_scale_min(np.minimum(scales, _SIX_BITS), np.minimum(mins, _SIX_BITS))
    return _stored(values, unit, unit_min, packed, quants, search.largest)


def find_weighted_scale_min(
    values: np.ndarray, importance: np.ndarray, search: Search, clamped: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `find_scale_min`, of `values` with `importance`, both float32 (n, 256).

    A value x has the weight importance * sqrt(2 * mean(x * x) + x * x), the mean being over the super-block; a sub-block's scale and min
    have the sum of its weights. `clamped`: a scale or min that wrapped becomes 63; else its surplus bits lie over its neighbours'.
    """
    weights = weights_of(values, importance, np.float32(2)).reshape(-1, SUB_VALUES)
    scale, minimum, quants = affine_scale(values.reshape(-1, SUB_VALUES), weights, search)
    sums = running_sum(weights).reshape(-1, SUB_BLOCKS)
    unit, scales = positive_scale(scale.reshape(-1, SUB_BLOCKS), sums, _SIX_BITS)
    unit_min, mins = positive_scale(minimum.reshape(-1, SUB_BLOCKS), sums, _SIX_BITS)
    if clamped:
        scales, mins = np.minimum(scales, _SIX_BITS), np.minimum(mins, _SIX_BITS)
    return _stored(values, unit[:, None], unit_min[:, None], pack_scale_min(scales, mins), quants, search.largest)


def _stored(
    values: np.ndarray, unit: np.ndarray, unit_min: np.ndarray, packed: np.ndarray, quants: np.ndarray, largest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """d, dmin, the packed scales and mins, and the quants chosen anew under what is stored; `quants` where the stored scale is 0."""
    d, dmin = unit.astype(np.float16), unit_min.astype(np.float16)
    scales, mins = unpack_scale_min(packed)
    scale = (d.astype(np.float32) * scales).reshape(-1, 1)
    minimum = (dmin.astype(np.float32) * mins).reshape(-1, 1)
    rounded = nearest_int((values.reshape(-1, SUB_VALUES) + minimum) / scale).clip(0, largest)
    return d, dmin, packed, np.where(scale == 0, quants, rounded).reshape(values.shape)


def in_units(sub_scales: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The unit (n, 1) of which the largest of `sub_scales`, float32 (n, m), is `most`, and the multiples of it for all, uint8 (n, m).

    Multiples of what is below zero wrap to a byte, as in ggml. Without a scale above zero all are zero.
    """
    largest = np.fmax.reduce(sub_scales, axis=1, keepdims=True)  # past NaN, which huge values may give
    largest = np.where(largest > 0, largest, np.float32(0))
    inverse = np.where(largest > 0, np.float32(most) / largest, np.float32(0))
    return largest / np.float32(most), nearest_int(inverse * sub_scales).astype(np.uint8)
