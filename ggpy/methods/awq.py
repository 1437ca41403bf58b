"""AWQ: multiply the columns that see large activations before rounding, and divide their activations by as much.

No weight is skipped and none is kept in more bits: a salient column, scaled up, is rounded in steps that are finer in its own measure. The
division goes into the operation before, a norm or a linear layer, and costs nothing at run time. How much to scale is searched: powers of
the mean activation, from 0 (plain rounding) to 1.
Here every matrix has scales of its own; in a model, matrices that share their input share them.
Source: Lin et al. 2024, "AWQ" (arXiv:2306.00978), section 3; the clip search from its code, auto_clip.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggpy.methods.grids import affine_grid
from ggpy.methods.quantized import Matrix, Quantized, check, in_groups
from ggpy.methods.zero_point import affine_bits

EXPONENTS = np.arange(20) / 20
_CLIPS = 1 - np.arange(1, 11) / 20  # a group's range, cut to as little as half


def quantize(weights: Matrix, activations: Matrix, *, bits: int = 4, group: int = 64) -> Quantized:
    """Zero-point levels for every `group` weights of W · diag(s), s = mean|x|**exponent; then each group's range cut where that helps."""
    check(weights, activations)
    in_groups(weights, group)
    gram = activations.T @ activations
    best = min((_scaled(weights, s, bits, group) for s in candidates(activations)), key=lambda found: output_cost(weights - found[0], gram))
    values = _clipped(weights, best[1], activations, bits, group)
    return Quantized(values, bits + affine_bits(bits) / group)


def candidates(activations: Matrix) -> list[NDArray[np.float32]]:
    """The channel scales that are tried, float32 (cols,) each, their extremes at equal distance from 1; the first is all ones."""
    size = np.abs(activations).mean(axis=0)
    found = []
    for exponent in EXPONENTS:
        scales = np.maximum(size**exponent, 1e-4)
        found.append((scales / np.sqrt(scales.max() * scales.min())).astype(np.float32))
    return found


def output_cost(errors: np.ndarray, gram: np.ndarray) -> float:
    """Σ (E x)² over the activations whose Gram matrix is given."""
    return float(np.einsum("ij,ij->", errors @ gram, errors))


def _scaled(weights: Matrix, scales: Matrix, bits: int, group: int) -> tuple[np.ndarray, Matrix]:
    groups = in_groups(weights * scales, group)
    return affine_grid(groups, bits).nearest(groups).reshape(weights.shape) / scales, scales


def _clipped(weights: Matrix, scales: Matrix, activations: Matrix, bits: int, group: int) -> Matrix:
    """Each group on the range, cut or not, that changes its own share of the output least."""
    groups = in_groups(weights * scales, group)
    x = in_groups(activations / scales, group).transpose(1, 0, 2)  # (groups, tokens, group)
    grams = x.transpose(0, 2, 1) @ x  # (groups, group, group)
    low, high = (np.asarray(f(groups, axis=-1, keepdims=True)) for f in (np.min, np.max))
    best, least = groups, np.full(groups.shape[:2], np.inf)
    for clip in (1.0, *_CLIPS):
        values = affine_grid(np.clip(groups, low * np.float32(clip), high * np.float32(clip)), bits).nearest(groups)
        errors = (values - groups).transpose(1, 0, 2)  # (groups, rows, group)
        cost = np.einsum("grn,grn->rg", errors @ grams, errors)
        best = np.where((cost < least)[..., None], values, best)
        least = np.minimum(cost, least)
    return (best.reshape(weights.shape) / scales).astype(np.float32)
