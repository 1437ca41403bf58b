"""The sixteen values of a four-bit float (E2M1: sign, two bits of exponent, one of mantissa), doubled to be integers, as ggml has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""Code 8, -0 in E2M1, decodes to +0."""


def nearest_code(values: np.ndarray, scale: np.ndarray) -> NDArray[np.uint8]:
    """The code c with the least |scale * DOUBLED[c] - value|, the lowest of several; float32 (n, m) and (n, 1)."""
    code = np.zeros(values.shape, np.uint8)
    least = np.abs(DOUBLED[0] * scale - values)
    for candidate in range(1, len(DOUBLED)):
        error = np.abs(DOUBLED[candidate] * scale - values)
        better = error < least
        code[better] = candidate
        least = np.where(better, error, least)
    return code
