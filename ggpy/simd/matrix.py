"""Register tiles: sixteen rows by a few tokens, one row per lane.

A panel holds sixteen weight rows so that four neighbouring values of all of them are one 64-byte vector; a tile of activations holds four
neighbouring values of its tokens side by side. One step multiplies a panel vector with each token's four values, broadcast: no sums across
lanes, and scales are applied to sixteen rows at once.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from .arithmetic import emit_fma
from .dot import emit_dot_i8i8, emit_dot_u8i8
from .memory import LINE, SECOND_LEVEL, emit_prefetch, pointer
from .target import NEON, target
from .vectors import I32, emit_splat, intrinsic, lane_constant

I64, FLOAT = ir.IntType(64), ir.FloatType()
F32X16, I32X16, I8X64 = ir.VectorType(FLOAT, 16), ir.VectorType(I32, 16), ir.VectorType(ir.IntType(8), 64)


LANES_STRIDE, LANES_GROUPS = 256, 16  # `int8_lanes`: bytes from one row's values to the next's, and groups that they have at the most


def _load(builder, address, kind, offset: int = 0):
    if offset:
        address = builder.add(address, ir.Constant(I64, offset))
    return builder.load(pointer(builder, address, kind), align=1)


def _everywhere(builder, address, kind, offset: int):
    return emit_splat(builder, _load(builder, address, kind, offset), ir.VectorType(kind, 16))


def _fours(builder, address, tokens: int, offset: int):
    """Four int8 of each token, in all lanes. NEON multiplies by part of a register: there one load serves all tokens."""
    together = _load(builder, address, ir.VectorType(I32, tokens), offset) if target().lowering == NEON else None
    for t in range(tokens):
        if together is not None:
            four = builder.shuffle_vector(together, together, lane_constant([t] * 16))
        else:
            four = _everywhere(builder, address, I32, offset + 4 * t)
        yield builder.bitcast(four, I8X64)


def int8_tile(tokens: int, group: int, signed: bool, lines: int):
    """int8_tile(...)(out, panel, scales, mins, x, x_scales, scale_shift, x_sums, groups, soon): out[t, r] = Σ over k of w[r, k] * x[t, k].

    w = scale * q - min per group of `group` values. All addresses:
    out float32 (tokens, 16); panel uint8, or int8 if `signed`, (groups * group / 4, 16, 4); scales, mins float32 (groups, 16);
    x int8 (groups * group / 4, tokens, 4); x_scales float32 (…, tokens), one row per 2**scale_shift groups;
    x_sums float32 (groups, tokens): each group's sum of x times its scale; soon: what will be read next, or 0: `lines` cache lines of it
    are asked for with each group, so that memory works while the tile multiplies.
    """
    dot = emit_dot_i8i8 if signed else emit_dot_u8i8
    steps = group // 4

    def code(context, builder, signature, args):
        out, panel, scales, mins, x, x_scales, scale_shift, x_sums, groups, soon = args
        totals = [cgutils.alloca_once_value(builder, ir.Constant(F32X16, [0.0] * 16)) for _ in range(tokens)]
        for total in totals:
            builder.store(ir.Constant(F32X16, [0.0] * 16), total)
        with cgutils.for_range(builder, groups) as loop:
            g = loop.index

            def at(base, stride):
                return builder.add(base, builder.mul(g, ir.Constant(I64, stride)))

            with builder.if_then(builder.icmp_signed("!=", soon, ir.Constant(I64, 0))):
                first = at(soon, LINE * lines)
                for line in range(lines):
                    emit_prefetch(builder, builder.add(first, ir.Constant(I64, LINE * line)), SECOND_LEVEL)
            w, row_scales, row_mins = at(panel, group * 16), at(scales, 64), at(mins, 64)
            token, sums = at(x, group * tokens), at(x_sums, 4 * tokens)
            token_scales = builder.add(x_scales, builder.mul(builder.lshr(g, scale_shift), ir.Constant(I64, 4 * tokens)))
            accumulators = [ir.Constant(I32X16, [0] * 16)] * tokens
            for step in range(steps):
                weights = _load(builder, w, I8X64, step * 64)
                for t, four in enumerate(_fours(builder, token, tokens, step * tokens * 4)):
                    accumulators[t] = dot(builder, accumulators[t], weights, four)
            scale, low = _load(builder, row_scales, F32X16), _load(builder, row_mins, F32X16)
            low = builder.fneg(low)
            for t, total in enumerate(totals):
                both = builder.fmul(scale, _everywhere(builder, token_scales, FLOAT, 4 * t))
                value = emit_fma(builder, builder.sitofp(accumulators[t], F32X16), both, builder.load(total))
                builder.store(emit_fma(builder, low, _everywhere(builder, sums, FLOAT, 4 * t), value), total)
        for t, total in enumerate(totals):
            address = builder.add(out, ir.Constant(I64, 64 * t))
            builder.store(builder.load(total), pointer(builder, address, F32X16), align=1)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, out, panel, scales, mins, x, x_scales, scale_shift, x_sums, groups, soon):
        return types.void(*[types.intp] * 10), code

    return tile


def int8_lanes(rows: int, tokens: int, group: int, signed: bool):
    """int8_lanes(...)(sums, q, scales, mins, x, x_scales, scale_shift, x_sums, groups): sums[r, t] += Σ over k of w[r, k] * x[t, k].

    The same with tokens in lanes: rows stay as they were unpacked, four values of one are broadcast. w = scale * q - min. Addresses:
    sums float32 (rows, tokens); q uint8, int8 if `signed`, (rows, LANES_STRIDE); scales, mins float32 (rows, LANES_GROUPS); others as
    in `int8_tile`. groups: how many there are, LANES_GROUPS at the most.
    """
    dot = emit_dot_i8i8 if signed else emit_dot_u8i8
    steps = group // 4
    floats, integers = ir.VectorType(FLOAT, tokens), ir.VectorType(I32, tokens)
    fours, octets = ir.VectorType(I32, tokens), ir.VectorType(ir.IntType(8), 4 * tokens)

    def code(context, builder, signature, args):
        out, q, scales, mins, x, x_scales, scale_shift, x_sums, groups = args
        totals = [cgutils.alloca_once_value(builder, _load(builder, out, floats, 4 * tokens * r)) for r in range(rows)]
        for r, total in enumerate(totals):
            builder.store(_load(builder, out, floats, 4 * tokens * r), total)
        with cgutils.for_range(builder, groups) as loop:
            g = loop.index

            def at(base, stride):
                return builder.add(base, builder.mul(g, ir.Constant(I64, stride)))

            values, row_scales, row_mins = at(q, group), at(scales, 4), at(mins, 4)
            token = at(x, group * tokens)
            below = builder.fneg(_load(builder, at(x_sums, 4 * tokens), floats))
            token_scales = builder.add(x_scales, builder.mul(builder.lshr(g, scale_shift), ir.Constant(I64, 4 * tokens)))
            token_scales = _load(builder, token_scales, floats)
            accumulators = [ir.Constant(integers, [0] * tokens)] * rows
            for step in range(steps):
                activations = _load(builder, token, octets, step * 4 * tokens)
                for r in range(rows):
                    four = emit_splat(builder, _load(builder, values, I32, LANES_STRIDE * r + 4 * step), fours)
                    accumulators[r] = dot(builder, accumulators[r], builder.bitcast(four, octets), activations)
            for r, total in enumerate(totals):
                scale = emit_splat(builder, _load(builder, row_scales, FLOAT, 4 * LANES_GROUPS * r), floats)
                low = emit_splat(builder, _load(builder, row_mins, FLOAT, 4 * LANES_GROUPS * r), floats)
                value = emit_fma(builder, builder.sitofp(accumulators[r], floats), builder.fmul(scale, token_scales), builder.load(total))
                builder.store(emit_fma(builder, low, below, value), total)
        for r, total in enumerate(totals):
            address = builder.add(out, ir.Constant(I64, 4 * tokens * r))
            builder.store(builder.load(total), pointer(builder, address, floats), align=1)
        return context.get_dummy_value()

    @intrinsic
    def lanes(typing, sums, q, scales, mins, x, x_scales, scale_shift, x_sums, groups):
        return types.void(*[types.intp] * 9), code

    return lanes


def float_tile(tokens: int):
    """float_tile(tokens)(out, panel, x, k): out float32 (tokens, 16) = panel float32 (k, 16) by x float32 (k, tokens)."""

    def code(context, builder, signature, args):
        out, panel, x, k = args
        totals = [cgutils.alloca_once_value(builder, ir.Constant(F32X16, [0.0] * 16)) for _ in range(tokens)]
        for total in totals:
            builder.store(ir.Constant(F32X16, [0.0] * 16), total)
        with cgutils.for_range(builder, k) as loop:
            weights = _load(builder, builder.add(panel, builder.mul(loop.index, ir.Constant(I64, 64))), F32X16)
            token = builder.add(x, builder.mul(loop.index, ir.Constant(I64, 4 * tokens)))
            for t, total in enumerate(totals):
                builder.store(emit_fma(builder, weights, _everywhere(builder, token, FLOAT, 4 * t), builder.load(total)), total)
        for t, total in enumerate(totals):
            address = builder.add(out, ir.Constant(I64, 64 * t))
            builder.store(builder.load(total), pointer(builder, address, F32X16), align=1)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, out, panel, x, k):
        return types.void(*[types.intp] * 4), code

    return tile


def _transpose(n: int):
    @intrinsic
    def op(typing, source, source_stride, destination):
        def code(context, builder, signature, args):
            source, stride, destination = args
            kind = ir.VectorType(I32, n)
            rows = [_load(builder, builder.add(source, builder.mul(stride, ir.Constant(I64, i))), kind) for i in range(n)]
            distance = 1
            while distance < n:  # swap the off-diagonal blocks of size `distance`
                low = lane_constant([i if not i & distance else n + i - distance for i in range(n)])
                high = lane_constant([i + distance if not i & distance else n + i for i in range(n)])
                for i in range(n):
                    if not i & distance:
                        a, b = rows[i], rows[i + distance]
                        rows[i], rows[i + distance] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
                distance *= 2
            for i, row in enumerate(rows):
                builder.store(row, pointer(builder, builder.add(destination, ir.Constant(I64, 4 * n * i)), kind), align=1)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), code

    return op


transpose_8x8, transpose_16x16 = _transpose(8), _transpose(16)
"""(source, source_stride, destination): rows of as many 4-byte elements, `source_stride` bytes apart, become contiguous columns."""
