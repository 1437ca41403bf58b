"""How far a weight may move through each format, and why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.blocks.block_format import split_fields

Bound = Callable[[np.ndarray, np.ndarray], np.ndarray]

HALF = 2.0**-11  # rounding to binary16 moves a normal number by at most this share of it
HALF_TINY = 2.0**-25  # and a denormal one by at most this much
FLOAT = 1e-5  # what float32 rounding adds, generously, as a share


def _per_block(values: np.ndarray, n: int, block_bound: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.repeat(block_bound(values.reshape(-1, n)), n)


def _in_half(number: np.ndarray) -> np.ndarray:
    """How far binary16 may move a positive number."""
    return np.maximum(number * HALF, HALF_TINY)


def single(share: float, tiny: float) -> Bound:
    """Half a unit in the last place."""
    return lambda values, blocks: np.maximum(np.abs(values) * share, tiny)


def symmetric(reach: int, step: float, block: int = 32) -> Bound:
    """Quants up to `reach` steps from zero; a value is at most `step` steps from its quant.

    Where only one end of the range is used (Q4_0: quants 0..15 around 8) the far end is a whole step short; otherwise half a step.
    The scale, rounded to binary16, moves a quant of `reach` by that many times its own movement.
    """

    def bound(x: np.ndarray) -> np.ndarray:
        d = np.abs(x).max(axis=1) / reach
        return d * (step + FLOAT) + reach * _in_half(d)

    return lambda values, blocks: _per_block(values, block, bound)


def with_minimum(largest: int) -> Bound:
    """Half a step, `largest` times the movement of the scale, and the movement of the minimum."""

    def bound(x: np.ndarray) -> np.ndarray:
        low, high = x.min(axis=1), x.max(axis=1)
        d = (high - low) / largest
        return d * (0.5 + FLOAT) + largest * _in_half(d) + _in_half(np.abs(low)) + FLOAT * np.abs(x).max(axis=1)

    return lambda values, blocks: _per_block(values, 32, bound)


def scale_and_min(name: str, largest: int) -> Bound:
    """Of the search, and of the six bits that scale and min are kept in.

    The search begins with even steps of range / largest, each value at most half a step off, and keeps only what lowers
    sum(w * e * e), w = rms + |x|. As w >= rms and sum(w) <= 64 rms, no error exceeds sqrt(64) half steps. Then scale and min each move by
    at most half a unit and what binary16 moves the unit by (63 times), a quant carries that up to `largest` times, and choosing quants
    anew never makes it worse.
    """

    def bound(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        d, dmin = split_fields(blocks, BLOCKS[name].fields)[:2]
        unit, unit_min = (np.repeat(x.astype(np.float64)[:, 0] * (1 + 2 * HALF) + 2 * HALF_TINY, 8) for x in (d, dmin))
        x = values.reshape(-1, 32)
        span = x.max(axis=1) - np.minimum(x.min(axis=1), 0)
        searched = 8 * span / largest / 2
        kept = largest * (unit / 2 + 63 * _in_half(unit)) + unit_min / 2 + 63 * _in_half(unit_min)
        return np.repeat((searched + kept) * (1 + FLOAT) + FLOAT * np.abs(x).max(axis=1), 32)

    return bound


def _q6_k(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """A sixth of the sub-block's largest magnitude p, and 32 units of the scales.

    The first trial has steps of p / 32 and each value at most one step off (the far end is a step short); what is kept has no larger
    sum(x * x * e * e), at most 16 p p steps squared, so the largest is at most p / 8 off and the scale at least 7 p / 256. So only
    magnitudes above 0.84 p can be clipped, and those are at most 4 / 0.84 steps, 0.15 p, off; the others round to half a step. An int8
    scale is at most half a unit off, one unit where 128 was cut to 127, and binary16 moves 127 units; a quant carries that 32 times.
    """
    *_, d = split_fields(blocks, BLOCKS["Q6_K"].fields)
    unit = np.repeat(np.abs(d.astype(np.float64)[:, 0]) * (1 + 2 * HALF) + 2 * HALF_TINY, 16)
    peak = np.abs(values.reshape(-1, 16)).max(axis=1)
    return np.repeat(peak / 6 + 32 * (unit + 128 * _in_half(unit)), 16)


def _q2_k(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The sub-block's range, zero included, and what keeping scale and min in four bits adds.

    A least-squares line has the slope of a mean of slopes between values, at most the range for one quant, and goes through their mean:
    what is between its ends is at most half a step off, what is beyond them is at most the range away from the mean. Then scale and min
    each move by at most half a unit and what binary16 moves the unit by (15 times); a quant carries that 3 times.
    """
    *_, d, dmin = split_fields(blocks, BLOCKS["Q2_K"].fields)
    unit, unit_min = (np.repeat(x.astype(np.float64)[:, 0] * (1 + 2 * HALF) + 2 * HALF_TINY, 16) for x in (d, dmin))
    x = values.reshape(-1, 16)
    span = np.maximum(x.max(axis=1), 0) - np.minimum(x.min(axis=1), 0)
    kept = 3 * (unit / 2 + 15 * _in_half(unit)) + unit_min / 2 + 15 * _in_half(unit_min)
    return np.repeat((span + kept) * (1 + FLOAT), 16)


def _q3_k(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The sub-block's largest magnitude p, and 4 units of the scales.

    The least-squares scale lies between 0 and p, so that a value is at most half of p off its quant, or cut by at most p. A six-bit scale
    is at most one unit off (32 is cut to 31), and binary16 moves 32 units; a quant carries that 4 times.
    """
    *_, d = split_fields(blocks, BLOCKS["Q3_K"].fields)
    unit = np.repeat(np.abs(d.astype(np.float64)[:, 0]) * (1 + 2 * HALF) + 2 * HALF_TINY, 16)
    peak = np.abs(values.reshape(-1, 16)).max(axis=1)
    return np.repeat(peak * (1 + FLOAT) + 4 * (unit + 32 * _in_half(unit)), 16)


def _levels(values: np.ndarray, n: int, moved: np.ndarray) -> np.ndarray:
    """0.63 of the largest magnitude p, and 127 times the movement of the scale.

    The first trial has the levels at p / 127, each value at most 14 of these steps off (beyond 113), 0.11 p. What is kept has no larger
    sum(x * x * e * e), at most 32 * p * p * (0.11 p)**2; so p itself is at most 0.63 p off, and being the farthest out, what is cut loses
    no more, and what is not is at most 12 steps of a scale not above p off its level.
    """
    peak = np.abs(values.reshape(-1, n)).max(axis=1)
    return np.repeat(0.63 * peak + 127 * moved, n)


def _iq4_nl(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Binary16 moves the scale."""
    d, _ = split_fields(blocks, BLOCKS["IQ4_NL"].fields)
    return _levels(values, 32, _in_half(np.abs(d.astype(np.float64)[:, 0]) * (1 + 2 * HALF)))


def _iq4_xs(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """A six-bit scale is at most one unit off (32 is cut to 31), and binary16 moves 32 units."""
    d, *_ = split_fields(blocks, BLOCKS["IQ4_XS"].fields)
    unit = np.repeat(np.abs(d.astype(np.float64)[:, 0]) * (1 + 2 * HALF) + 2 * HALF_TINY, 8)
    return _levels(values, 32, unit + 32 * _in_half(unit))


def _mxfp4(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Half of the largest magnitude p: what lies above 1.5 times the power of two at or below p is cut to that, and the widest gap between
    codes is half of that power, or that power where the logarithm was rounded up. Below 2**-125 all become 0."""
    return _per_block(values, 32, lambda x: np.abs(x).max(axis=1) * (0.5 + FLOAT) + 2.0**-125)


ERROR_BOUNDS: dict[str, Bound] = {
    "F32": lambda values, blocks: np.zeros_like(values),
    "F16": single(HALF, HALF_TINY),
    "BF16": single(2.0**-8, 2.0**-134),
    "Q4_0": symmetric(8, 1.0),
    "Q5_0": symmetric(16, 1.0),
    "Q8_0": symmetric(127, 0.5),
    "Q4_1": with_minimum(15),
    "Q5_1": with_minimum(31),
    "Q4_K": scale_and_min("Q4_K", 15),
    "Q5_K": scale_and_min("Q5_K", 31),
    "Q6_K": _q6_k,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "TQ1_0": symmetric(1, 0.5, 256),
    "TQ2_0": symmetric(1, 0.5, 256),
    "MXFP4": _mxfp4,
}
