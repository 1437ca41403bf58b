"""One sub-block of every row chosen anew, all other values staying as they are, where that makes the row's outputs better.

With all others fixed, the squared error of a row's outputs is (t - v) B (t - v)ᵀ plus what does not change, B being the sub-block's part
of the Gram matrix and t = v + (w - v) H B⁻¹ the values it would have without a grid. So it is rounded as in `feedback`, by the factor of B,
under the scales it has and those beside them; v is kept where nothing is better. The float16 numbers of its block stay.

Words, int64, are those of `WORDS`; arrays are float32 (values, rows) if not said otherwise: targets t; values v, changed in place; quants,
uint8, of the values chosen, which are kept where `better`, (rows,), is 1; units, (2, rows), d and dmin of the block; multiples, (2, rows),
changed in place, of scale and min, or scale and offset themselves; feedback and importance, of the factor of B; trials, n_trials, counter,
stride and groups as there.
"""

from __future__ import annotations

from ggpy.blocks import BLOCKS
from ggpy.kernels.encode.wide import VECTOR_BYTES, load_wide, splat_wide, store_wide, wide_constant
from ggpy.kernels.options import Kernel, inline
from ggpy.kernels.quantize.lane_grid import lane_grid
from ggpy.kernels.quantize.sub_block import fed, group_kernel, store_bytes, sub_block_rounding, to_bytes
from ggpy.simd.arithmetic import fma
from ggpy.simd.lanes import scratch, where_less
from ggpy.simd.memory import load_f32, load_i64

WORDS = ("targets", "values", "better", "quants", "units", "multiples", "feedback", "importance", "trials", "n_trials", "counter", "stride",
         "groups")  # fmt: skip
_zero, _one = wide_constant(0.0), wide_constant(1.0)


def refine_kernel(name: str) -> Kernel:
    """The kernel for sub-blocks of the format."""
    block_format = BLOCKS[name]
    grid = block_format.grid
    assert grid is not None
    nearest, index, *_ = lane_grid(grid, block_format.block_values)
    scale_and_offset, settle = sub_block_rounding(grid, nearest)
    sub = grid.sub_values
    size = sub * VECTOR_BYTES
    own_targets, own_errors, own_levels = scratch(size), scratch(size), scratch(size)
    own_units, pair = scratch(2 * VECTOR_BYTES), scratch(2 * VECTOR_BYTES)

    @inline
    def do_group(args, lane):
        targets, values, better, quants = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        units, multiples, feedback, importance = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48), load_i64(args + 56)
        trials, n_trials, stride = load_i64(args + 64), load_i64(args + 72), load_i64(args + 88)
        target, errors, levels, own, found = own_targets(), own_errors(), own_levels(), own_units(), pair()
        before = _zero()
        for j in range(sub):
            at = VECTOR_BYTES * j
            t = load_wide(targets + stride * j + lane)
            off = t - load_wide(values + stride * j + lane)
            store_wide(target + at, t)
            total = fed(off, feedback + 4 * sub * j, errors, j)
            before = fma(total * total, splat_wide(load_f32(importance + 4 * j)), before)
            store_wide(errors + at, off)
        for i in range(2):
            store_wide(own + VECTOR_BYTES * i, load_wide(units + stride * i + lane))
            store_wide(found + VECTOR_BYTES * i, load_wide(multiples + stride * i + lane))
        after = settle(target, target, errors, levels, feedback, 4 * sub, importance, own, trials, n_trials, found, before)
        scale, offset = scale_and_offset(own, found)
        for j in range(sub):
            level, there = load_wide(levels + VECTOR_BYTES * j), stride * j + lane
            store_wide(values + there, where_less(after, before, scale * level + offset, load_wide(values + there)))
            store_bytes(quants + there // 4, to_bytes(index(level)))
        store_wide(better + lane, where_less(after, before, _one(), _zero()))
        for i in range(2):
            store_wide(multiples + stride * i + lane, load_wide(found + VECTOR_BYTES * i))

    return group_kernel(do_group, WORDS)


q4_0, q4_1, q5_0, q5_1 = (refine_kernel(name) for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"))
q8_0, iq4_nl, iq4_xs = (refine_kernel(name) for name in ("Q8_0", "IQ4_NL", "IQ4_XS"))
q2_k, q3_k, q4_k, q5_k, q6_k = (refine_kernel(name) for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"))
