"""GPTQ inside blocks: columns one after the other, each value moved by the errors before it and rounded to its block's grid.

With the Gram matrix H = A Aᵀ, A upper triangular, the squared error of a row's outputs is the sum over columns j of a_jj² (t_j - v_j)²:
v_j is what is stored, t_j = w_j + sum over i < j of (w_i - v_i) a_ij / a_jj what the errors before it make of the weight w_j. Here t_j is
rounded to the grid, one j after the other: Babai's nearest plane, the same numbers as GPTQ's updates by the inverse of H (arXiv
2210.17323, 2507.18553), and no inverse is needed.

The scale of a sub-block is chosen when its turn comes: first by a search in the t_j as they stand when its block begins, weighted by a_jj²,
then by steps to neighbouring scales and offsets, each judged by the error that the whole sub-block has with its own feedback.

Words, int64, are those of `WORDS`; arrays are float32 (columns, rows) of one panel's columns and all rows, if not said otherwise:
weights; targets, t_j without the errors of this panel; errors, w - v, to be filled; quants, uint8, to be filled; units, (2 * blocks, rows),
d and then dmin, to be filled; multiples, (2 * sub-blocks, rows), of scales and then of mins, or scale and offset themselves, to be filled;
feedback, a_ij / a_jj for i < j in row j, (columns, columns); importance, a_jj², (columns,); trials, (n, 3): factor and step of a scale,
step of an offset; how many trials; counter, 0; columns; bytes of a row of float32; groups of LANES rows.
"""

from __future__ import annotations

import numpy as np

from ggpy.blocks import BLOCKS
from ggpy.kernels.encode.wide import VECTOR_BYTES, load_wide, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import Kernel, inline
from ggpy.kernels.quantize.lane_grid import clamped, inverse_of, lane_grid
from ggpy.kernels.quantize.sub_block import fed, group_kernel, store_bytes, sub_block_rounding, to_bytes
from ggpy.simd.arithmetic import round_even
from ggpy.simd.lanes import scratch
from ggpy.simd.memory import load_f32, load_i64

PANEL = 256
"""Most columns of a panel."""
WORDS = (
    "weights", "targets", "errors", "quants", "units", "multiples", "feedback", "importance", "trials", "n_trials", "counter", "columns",
    "stride", "groups",
)  # fmt: skip

_zero, _infinite = wide_constant(0.0), wide_constant(np.inf)


def feedback_kernel(name: str) -> Kernel:
    """The kernel for blocks of the format."""
    block_format = BLOCKS[name]
    grid, block = block_format.grid, block_format.block_values
    assert grid is not None
    nearest, index, first_scales, unit_of, unit_of_mins = lane_grid(grid, block)
    _, settle = sub_block_rounding(grid, nearest)
    sub, n_sub, in_units = grid.sub_values, block // grid.sub_values, grid.has_sub_scales
    snap_scale = clamped(float(grid.scales[0]), float(grid.scales[-1]))
    snap_min = clamped(float(grid.mins[0]), float(grid.mins[-1]))
    size, numbers = sub * VECTOR_BYTES, n_sub * VECTOR_BYTES
    panel_errors, block_targets = scratch(PANEL * VECTOR_BYTES), scratch(block * VECTOR_BYTES)
    panel_weights, sub_lanes, sub_targets, sub_levels = scratch(PANEL * VECTOR_BYTES), scratch(3 * size), scratch(size), scratch(size)
    found_scales, block_units, chosen = scratch(2 * VECTOR_BYTES), scratch(2 * VECTOR_BYTES), scratch(2 * VECTOR_BYTES)
    sums, found_multiples = scratch(numbers), scratch(2 * numbers)

    @inline
    def first_guess(targets, importance, found, units):
        """Units of a block, and for each of its sub-blocks a vector in `found` of multiples of them, then as many for the mins; or scale
        and offset of the block."""
        lanes, at, weight = sub_lanes(), found_scales(), sums()
        for b in range(n_sub):
            total = _zero()
            for j in range(sub):
                w = splat_wide(load_f32(importance + 4 * (sub * b + j)))
                store_wide(lanes + VECTOR_BYTES * j, load_wide(targets + VECTOR_BYTES * (sub * b + j)))
                store_wide(lanes + size + VECTOR_BYTES * j, w)
                total = total + w
            first_scales(lanes, at)
            store_wide(weight + VECTOR_BYTES * b, total)
            store_wide(found + VECTOR_BYTES * b, load_wide(at))
            low = load_wide(at + VECTOR_BYTES)
            store_wide(found + numbers + VECTOR_BYTES * b, _zero() - low if in_units else low)
        unit_of(found, weight, units)
        unit_of_mins(found + numbers, weight, units + VECTOR_BYTES)
        if in_units:
            inverse, inverse_min = inverse_of(load_wide(units)), inverse_of(load_wide(units + VECTOR_BYTES))
            for b in range(0, numbers, VECTOR_BYTES):
                store_wide(found + b, snap_scale(round_even(load_wide(found + b) * inverse)))
                store_wide(found + numbers + b, snap_min(round_even(load_wide(found + numbers + b) * inverse_min)))

    @inline
    def do_group(args, lane_offset):
        """One group of rows, all columns of the panel."""
        weights, targets, errors, quants = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        units, multiples, feedback, importance = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48), load_i64(args + 56)
        trials, n_trials, columns, stride = load_i64(args + 64), load_i64(args + 72), load_i64(args + 88), load_i64(args + 96)
        own_errors, own_weights, own_targets, sub_target = panel_errors(), panel_weights(), block_targets(), sub_targets()
        levels, found, own_units, pair = sub_levels(), found_multiples(), block_units(), chosen()
        row_bytes, blocks = 4 * columns, columns // block
        for j in range(columns):
            store_wide(own_weights + VECTOR_BYTES * j, load_wide(weights + stride * j + lane_offset))
        for n in range(blocks):
            first = block * n
            for j in range(block):
                target = load_wide(targets + stride * (first + j) + lane_offset)
                store_wide(own_targets + VECTOR_BYTES * j, fed(target, feedback + row_bytes * (first + j), own_errors, first))
            first_guess(own_targets, importance + 4 * first, found, own_units)
            for b in range(n_sub):
                start = sub * b
                before = own_errors + VECTOR_BYTES * first
                for j in range(start, start + sub):
                    coefficients = feedback + row_bytes * (first + j) + 4 * first
                    total = fed(load_wide(own_targets + VECTOR_BYTES * j), coefficients, before, start)
                    store_wide(sub_target + VECTOR_BYTES * (j - start), total)
                store_wide(pair, load_wide(found + VECTOR_BYTES * b))
                store_wide(pair + VECTOR_BYTES, load_wide(found + numbers + VECTOR_BYTES * b))
                place = first + start
                own, corner = VECTOR_BYTES * place, feedback + row_bytes * place + 4 * place
                settle(
                    sub_target, own_weights + own, own_errors + own, levels, corner, row_bytes, importance + 4 * place,
                    own_units, trials, n_trials, pair, _infinite(),
                )  # fmt: skip
                for j in range(sub):
                    q = to_bytes(index(load_wide(levels + VECTOR_BYTES * j)))
                    store_bytes(quants + (stride * (place + j) + lane_offset) // 4, q)
                sub_block = n_sub * n + b
                store_wide(multiples + stride * sub_block + lane_offset, load_wide(pair))
                store_wide(multiples + stride * (blocks * n_sub + sub_block) + lane_offset, load_wide(pair + VECTOR_BYTES))
            store_wide(units + stride * n + lane_offset, load_wide(own_units))
            store_wide(units + stride * (blocks + n) + lane_offset, load_wide(own_units + VECTOR_BYTES))
        for j in range(columns):
            store_wide(errors + stride * j + lane_offset, load_wide(own_errors + VECTOR_BYTES * j))

    return group_kernel(do_group, WORDS)


q4_0, q4_1, q5_0, q5_1 = (feedback_kernel(name) for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"))
q8_0, iq4_nl, iq4_xs = (feedback_kernel(name) for name in ("Q8_0", "IQ4_NL", "IQ4_XS"))
q2_k, q3_k, q4_k, q5_k, q6_k = (feedback_kernel(name) for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"))
