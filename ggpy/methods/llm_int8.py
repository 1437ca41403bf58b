"""LLM.int8(): weights and activations in 8 bits, but for the few columns in which activations are large; those stay in half precision.

What makes 8-bit activations fail is a handful of columns whose activations are twenty times those of the rest: scaled for them, the rest of
a token would round to nothing. The product is split in two; the outlier columns go the slow, exact way.
bitsandbytes, whose method it is, keeps all weights in int8 when it loads a model, outlier columns too, and splits off the activations only.
Source: Dettmers et al. 2022, "LLM.int8()" (arXiv:2208.07339), section 3.
"""

from __future__ import annotations

import numpy as np

from ggpy.methods.quantized import INDEX_BITS, Matrix, Quantized, check

THRESHOLD = 6.0  # of activations, from the paper
ROW_SCALE_BITS = 32


def quantize(weights: Matrix, activations: Matrix, *, threshold: float = THRESHOLD) -> Quantized:
    """W ≈ c · q / 127, c being the largest magnitude of a row; columns with an activation of `threshold` or more in float16."""
    check(weights, activations)
    rows, cols = weights.shape
    outliers = np.flatnonzero((np.abs(activations) >= threshold).any(axis=0))
    quants, peaks = vector_wise(weights)
    values = (quants * (peaks / np.float32(127))).astype(np.float32)
    values[:, outliers] = weights[:, outliers].astype(np.float16)

    def product(x: Matrix) -> Matrix:
        regular = x.copy()
        regular[:, outliers] = 0
        x_quants, x_peaks = vector_wise(regular)
        sums = x_quants.astype(np.float64) @ quants.T.astype(np.float64)  # whole numbers, exact as an int32 accumulator
        scales = (x_peaks / np.float32(127)) * (peaks.T / np.float32(127))
        return (sums.astype(np.float32) * scales + x[:, outliers] @ values[:, outliers].T).astype(np.float32, copy=False)

    spent = 8 * cols + 8 * len(outliers) + ROW_SCALE_BITS + INDEX_BITS * len(outliers) / rows
    return Quantized(values, spent / cols, product)


def vector_wise(x: Matrix) -> tuple[Matrix, Matrix]:
    """Whole numbers from -127 to 127, float32 (n, cols), and the largest magnitude of each row, float32 (n, 1)."""
    peaks = np.abs(x).max(axis=1, keepdims=True)
    scales = np.divide(np.float32(127), peaks, out=np.zeros_like(peaks), where=peaks > 0)
    return np.rint(x * scales), peaks
