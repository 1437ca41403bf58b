"""Super-blocks of Q4_K and Q5_K: 8 sub-blocks of 32 values, each with a 6-bit scale and a 6-bit min under one float16 pair.

The search is ggml's (`make_qkx2_quants` in ggml-quants.c): for a range of trial scales, round the sub-block, solve the weighted least
squares for scale and min given those quants, keep what has the least weighted error. Every float32 operation stands in ggml's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ggpy.blocks.rounding import nearest_int, running_sum

SUB_BLOCKS, SUB_VALUES = 8, 32
_SIX_BITS = 63


@dataclass(frozen=True)
class Search:
    """Trial k of `steps` spreads the sub-block's range over `largest` + first + k * step quants, `largest` being the highest quant."""

    largest: int
    first: float
    step: float
    steps: int

    def spreads(self) -> np.ndarray:
        """float32 (steps,): the numbers the range is divided into."""
        trials = np.arange(self.steps, dtype=np.float32)
        return (np.float32(self.first) + np.float32(self.step) * trials) + np.float32(self.largest)


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
    """The encoding of `values`, float32 (n, 256): float16 (n, 1) d and dmin, packed scales and mins (n, 12), quants int32 (n, 256)."""
    sub_blocks = values.reshape(-1, SUB_VALUES)
    scale, minimum, quants = _search(sub_blocks, search)

    largest_scale, scales = _six_bits(scale.reshape(-1, SUB_BLOCKS))
    largest_min, mins = _six_bits(minimum.reshape(-1, SUB_BLOCKS))
    d, dmin = largest_scale.astype(np.float16), largest_min.astype(np.float16)

    stored_scale = (d.astype(np.float32) * scales).reshape(-1, 1)
    stored_min = (dmin.astype(np.float32) * mins).reshape(-1, 1)
    rounded = nearest_int((sub_blocks + stored_min) / stored_scale).clip(0, search.largest)
    quants = np.where(stored_scale == 0, quants, rounded)
    return d, dmin, pack_scale_min(scales, mins), quants.reshape(values.shape)


def _six_bits(sub_scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unit (n, 1), float32, and the multiples of it (n, 8), uint8 up to 63, that stand for float32 (n, 8)."""
    largest = np.fmax.reduce(sub_scales, axis=1, keepdims=True, initial=np.float32(0))  # past NaN, which huge values may give
    inverse = np.where(largest > 0, np.float32(_SIX_BITS) / largest, np.float32(0))
    multiples = np.minimum(nearest_int(inverse * sub_scales) & 0xFF, _SIX_BITS)  # a negative scale wraps, as in ggml
    return largest / np.float32(_SIX_BITS), multiples.astype(np.uint8)


def _search(x: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, negated min, float32 (m,), and quants, int32 (m, 32), of sub-blocks `x`, float32 (m, 32)."""
    rms = np.sqrt(running_sum(x * x) / np.float32(SUB_VALUES))
    weights = rms[:, None] + np.abs(x)
    sum_w, sum_x = running_sum(weights), running_sum(weights * x)

    low, high = np.minimum(x.min(axis=1), np.float32(0)), x.max(axis=1)

    def rounded(inverse: np.ndarray) -> np.ndarray:
        return nearest_int(inverse[:, None] * (x - low[:, None])).clip(0, search.largest)

    def error(scale: np.ndarray, low: np.ndarray, quants: np.ndarray) -> np.ndarray:
        off = (scale[:, None] * quants.astype(np.float32) + low[:, None]) - x
        return running_sum(weights * (off * off))

    inverse = np.float32(search.largest) / (high - low)
    scale = np.float32(1) / inverse
    quants = rounded(inverse)
    least = error(scale, low, quants)

    for spread in search.spreads():
        trial = rounded(spread / (high - low))
        l = trial.astype(np.float32)
        wl = weights * l
        sum_l, sum_l2, sum_xl = running_sum(wl), running_sum(wl * l), running_sum(wl * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        trial_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = trial_low > 0
        trial_scale = np.where(above, sum_xl / sum_l2, trial_scale)
        trial_low = np.where(above, np.float32(0), trial_low)
        trial_error = error(trial_scale, trial_low, trial)
        better = (determinant > 0) & (trial_error < least)
        quants = np.where(better[:, None], trial, quants)
        least, scale, low = (np.where(better, new, old) for new, old in ((trial_error, least), (trial_scale, scale), (trial_low, low)))

    return scale, -low, quants  # a sub-block of one value, zero or below, has come out as scale 0 and quants 0 by itself
