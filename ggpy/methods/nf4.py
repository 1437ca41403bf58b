"""NF4: 16 levels at the quantiles of a normal distribution, scaled by each block's largest magnitude; those scales quantized again.

The levels are not evenly spaced: they lie densest around 0, where most weights are, so that each is used about as often. Zero is a level,
and the sides differ: eight levels above it, seven below. Double quantization keeps a block's scale in 8 bits, which brings 4.5 bits down to
4.13.
Source: Dettmers et al. 2023, "QLoRA" (arXiv:2305.14314), section 3; levels and the 8-bit code as bitsandbytes has them.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ggpy.methods.quantized import Matrix, Quantized, check

_OUTERMOST = 0.9677083  # the mean of 1 - 1/30 and 1 - 1/32: half a step from the end for 15 and for 16 levels
_NESTED_BLOCK = 256


def normal_levels() -> NDArray[np.float32]:
    """The 16 levels from -1 to 1, ascending."""
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(_OUTERMOST, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(_OUTERMOST, 0.5, 8)[:-1]]
    levels = np.sort([*above, 0.0, *below])
    return (levels / levels.max()).astype(np.float32)


def dynamic_levels() -> NDArray[np.float32]:
    """The 256 levels of the 8-bit code in which scales are kept: 0, and for every power of ten from 1e-6 to 1 evenly spaced fractions, one
    of the least, twice as many with each power."""
    sizes = []
    for i in range(7):
        edges = np.linspace(0.1, 1, 2**i + 1)
        sizes += list(10.0 ** (i - 6) * (edges[:-1] + edges[1:]) / 2)
    return np.sort(np.array([*sizes, *(-s for s in sizes), 0.0, 1.0])).astype(np.float32)


def nearest(levels: NDArray[np.float32], values: np.ndarray) -> np.ndarray:
    """The number of the closest level, of each value; levels ascend."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


def quantize(weights: Matrix, activations: Matrix, *, double: bool = True, block: int = 64) -> Quantized:
    """W ≈ c · level[q], c for every `block` weights of the matrix, taken row after row: float32, or `double`-quantized."""
    check(weights, activations)
    flat = weights.reshape(-1)
    padded = np.zeros(-(-flat.size // block) * block, np.float32)
    padded[: flat.size] = flat
    blocks = padded.reshape(-1, block)
    scales = np.abs(blocks).max(axis=1)
    levels = normal_levels()
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    quants = nearest(levels, blocks * inverse[:, None])  # by the exact scales, as bitsandbytes does
    bits = 4 + 32 * scales.size / flat.size
    if double:
        scales, nested_bits = _quantized_scales(scales)
        bits = 4 + nested_bits / flat.size
    return Quantized((levels[quants] * scales[:, None]).reshape(-1)[: flat.size].reshape(weights.shape), bits)


def _quantized_scales(scales: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """What the scales become in 8 bits less their mean, under a scale of their own for every 256, and the bits all that takes."""
    mean = scales.mean(dtype=np.float32)
    starts = range(0, scales.size, _NESTED_BLOCK)
    kept, levels = np.empty_like(scales), dynamic_levels()
    for start in starts:
        part = scales[start : start + _NESTED_BLOCK] - mean
        peak = np.abs(part).max() or np.float32(1)
        kept[start : start + _NESTED_BLOCK] = levels[nearest(levels, part / peak)] * peak
    return kept + mean, 8 * scales.size + 32 * len(starts) + 32
