"""Quants of the wide vectors against `ggpy.blocks.rounding`: ties, signs, clamps, and what is not small."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ggpy.blocks.rounding import nearest_int
from ggpy.kernels.encode.wide import LANES, all_below, load_wide, rounding, signed_rounding, small_rounding, store_wide

_any, _small, _signed, _below = rounding(0, 15), small_rounding(15), signed_rounding(-32, 31), all_below(4.0)


@njit
def round_any(source, target):
    store_wide(target, _any(load_wide(source)))


@njit
def round_small(source, target):
    store_wide(target, _small(load_wide(source)))


@njit
def round_signed(source, target):
    store_wide(target, _signed(load_wide(source)))


@njit
def are_below(source):
    return _below(load_wide(source))


def by_lanes(function, values: np.ndarray) -> np.ndarray:
    padded = np.resize(values, (-(-len(values) // LANES), LANES)).astype(np.float32)
    out = np.empty_like(padded)
    for row, target in zip(padded, out, strict=True):
        function(row.ctypes.data, target.ctypes.data)
    return out.ravel()[: len(values)]


SMALL = np.concatenate(
    (
        np.arange(-80, 80, dtype=np.float32) / 2,  # every second one a tie
        np.nextafter(np.arange(-40, 40, dtype=np.float32) + np.float32(0.5), np.float32(-100)),
        np.array([-0.0, 1e-45, -1e-45, 2.0**21 - 0.5, -(2.0**21) + 0.5, 1e6 + 0.5], np.float32),
        np.random.default_rng(4).standard_normal(5000).astype(np.float32) * 20,
    )
)
WILD = np.array([np.nan, -np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**22, 2.0**23 + 2, -(2.0**24), 1e9], np.float32)


@pytest.mark.parametrize(
    ("function", "values", "least", "largest"),
    [(round_any, np.concatenate((SMALL, WILD)), 0, 15), (round_small, SMALL, 0, 15), (round_signed, SMALL, -32, 31)],
)
def test_rounded_and_clamped_as_the_reference_does(function, values: np.ndarray, least: int, largest: int):
    rounded = by_lanes(function, values)
    with np.errstate(all="ignore"):
        assert np.array_equal(rounded, nearest_int(values).clip(least, largest))


@pytest.mark.parametrize("value", [4.0, -4.0, 5e30, np.inf, -np.inf, np.nan])
def test_one_lane_that_is_not_below_is_enough(value: float):
    values = np.full(LANES, -3.9999998, np.float32)
    assert are_below(values.ctypes.data)
    for lane in (0, LANES // 2, LANES - 1):
        wild = values.copy()
        wild[lane] = value
        assert not are_below(wild.ctypes.data)
