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


@intrinsic
def transpose_16x16(typing, source, source_stride, destination):
    """Sixteen rows of sixteen 4-byte elements, `source_stride` bytes apart, become sixteen contiguous columns of 64 bytes."""

    def code(context, builder, signature, args):
        source, stride, destination = args
        rows = [_load(builder, builder.add(source, builder.mul(stride, ir.Constant(I64, i))), I32X16) for i in range(16)]
        for distance in (1, 2, 4, 8):  # swap the off-diagonal blocks of size `distance`
            low = lane_constant([i if not i & distance else 16 + i - distance for i in range(16)])
            high = lane_constant([i + distance if not i & distance else 16 + i for i in range(16)])
            for i in range(16):
                if not i & distance:
                    a, b = rows[i], rows[i + distance]
                    rows[i], rows[i + distance] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        for i, row in enumerate(rows):
            builder.store(row, pointer(builder, builder.add(destination, ir.Constant(I64, 64 * i)), I32X16), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), code
