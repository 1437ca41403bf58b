"""Float to integer, each as the C of ggml's reference encoders does it, with the cases C leaves undefined settled as x86 does."""

from __future__ import annotations

import numpy as np

_MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves the rounded integer in the low mantissa bits
_BELOW_HALF = np.float32(0.49999997)  # the float32 before 0.5


def nearest_int(values: np.ndarray) -> np.ndarray:
    """int32, rounded to nearest even, for |values| < 2**22; NaN gives 0 and Inf -2**22, by the bits of the sum."""
    bits = (values + _MAGIC).view(np.int32)
    return (bits & 0x007FFFFF) - 0x00400000


def truncated(values: np.ndarray) -> np.ndarray:
    """int32, rounded towards zero; 0 for NaN and what int32 cannot hold (a conversion to int8 takes the low byte of x86's 0x80000000)."""
    return np.where(np.abs(values) < 2.0**31, values, np.float32(0)).astype(np.int32)


def half_away(values: np.ndarray) -> np.ndarray:
    """int32, halves rounded away from zero (C's roundf); 0 for NaN and what int32 cannot hold.

    Adding the float before 0.5 instead of 0.5 keeps 0.49999997 at 0 and still carries exact halves up.
    """
    return truncated(values + np.copysign(_BELOW_HALF, values))


def reciprocal(scale: np.ndarray) -> np.ndarray:
    """1 / scale in float32, 0 where scale is 0; Inf for the smallest denormals."""
    return np.where(scale != 0, np.float32(1) / np.where(scale != 0, scale, np.float32(1)), np.float32(0))


def running_sum(terms: np.ndarray) -> np.ndarray:
    """Sum over the last axis in float32, from zero, one term after the other: np.sum adds pairwise and would round differently."""
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # of terms -0, +0


def first_extremes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(smallest, largest) per row, each (n, 1); of equal ones the first, which decides between 0 and -0."""
    low = np.take_along_axis(values, values.argmin(axis=1, keepdims=True), axis=1)
    high = np.take_along_axis(values, values.argmax(axis=1, keepdims=True), axis=1)
    return low, high


def first_peak(values: np.ndarray) -> np.ndarray:
    """The value of the largest magnitude per row, (n, 1), with its sign; of equal ones the first; past NaN; +0, never -0, of zeros."""
    numbers = np.where(np.isnan(values), np.float32(0), values)
    return np.take_along_axis(numbers, np.abs(numbers).argmax(axis=1, keepdims=True), axis=1) + np.float32(0)
