"""The first of the farthest, smallest and largest of 32 values: ggml keeps the first of equals, which decides signs and zeros."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.encode.chunks import magnitude_bits
from ggpy.kernels.encode.rounding import splat_f32, splat_i32
from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import maximum, minimum
from ggpy.simd.lanes import first_bit, lanes_equal, larger, largest_lane, smallest_lane
from ggpy.simd.memory import load_f32, load_f32x16


@inline
def _first(source, low_bits, high_bits):
    """The value at the lowest set bit of two masks of 16."""
    return load_f32(source + 4 * first_bit(low_bits | high_bits << 16))


@inline
def first_peak(source):
    """The value of the largest magnitude of 32 float32 at `source`, with its sign; +0 of zeros."""
    low, high = magnitude_bits(load_f32x16(source)), magnitude_bits(load_f32x16(source + 64))
    peak = splat_i32(largest_lane(larger(low, high)))
    return _first(source, lanes_equal(low, peak), lanes_equal(high, peak)) + np.float32(0)


@inline
def first_smallest(source):
    """The smallest of 32 float32 at `source`; of 0 and -0 the first."""
    low, high = load_f32x16(source), load_f32x16(source + 64)
    least = splat_f32(smallest_lane(minimum(low, high)))
    return _first(source, lanes_equal(low, least), lanes_equal(high, least))


@inline
def first_largest(source):
    """The largest of 32 float32 at `source`; of 0 and -0 the first."""
    low, high = load_f32x16(source), load_f32x16(source + 64)
    most = splat_f32(largest_lane(maximum(low, high)))
    return _first(source, lanes_equal(low, most), lanes_equal(high, most))
