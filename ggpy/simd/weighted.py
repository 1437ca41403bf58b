"""Integer dots with weights: sums of int8 products, each multiplied by its group's scale before all are summed; and dots of int16."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from .dot import emit_dot_i8i8, emit_dot_u8i8, joined, maddwd, pairs_u8i8, pieces_of, sdot, signs_moved
from .target import target
from .vectors import Vector, declare, intrinsic, kept, lane_constant

I8, I16, I32 = (ir.IntType(n) for n in (8, 16, 32))
PACKED, PAIRED = 63, 127
"""Largest values of which sums of four products, or of two, fit int16."""


def _spread(builder, words, lanes):
    """Lanes of int16 `words`, picked by constant indices: bytes moved in one instruction where the CPU has it.

    The indices go through an empty instruction, so that LLVM does not see that they are constant: it would choose two instructions, and
    in the loops that use this any one counts.
    """
    if len(lanes) == 32 and words.type.count <= 32 and target().has_byte_permute:
        index = ir.Constant(ir.VectorType(I8, 64), [2 * lane + part for lane in lanes for part in (0, 1)])
        hidden = kept(builder, index, "v")
        function = declare(builder, "llvm.x86.avx512.permvar.qi.512", index.type, [index.type] * 2)
        whole = builder.bitcast(_cycled(builder, words, 32), index.type)
        return builder.bitcast(builder.call(function, [whole, hidden]), ir.VectorType(I16, 32))
    return builder.shuffle_vector(words, words, lane_constant(lanes))


def _cycled(builder, value, lanes: int):
    return builder.shuffle_vector(value, value, lane_constant([i % value.type.count for i in range(lanes)]))


def _vpdpwssd(builder, acc, a, b):
    """acc plus sums of two neighbouring products of int16 lanes, 512 bits wide."""
    name = "llvm.x86.avx512.vpdpwssd.512"
    return builder.call(declare(builder, name, acc.type, [acc.type, a.type, b.type]), [acc, a, b])


def weighted_dot(words: Vector, lanes: Sequence[int], *, largest: int = PACKED, signed: bool = False):
    """weighted_dot(i16x32, lanes)(acc, a, b, c, d, weights): i32x16 acc plus the products of a and b, and of c and d, weighted.

    a, c u8x64, none above `largest`, or i8x64 if `signed`; b, d i8x64 from -127 on: 128 values in order. Each eight of them have the weight
    weights[lanes[i // 8]]. The whole sum must fit int32. Which int32 lane a product is added to depends on the CPU. `largest` decides how
    much is summed before it is multiplied; above 127 only where the CPU's dot takes any unsigned byte.
    """
    acc_type, values_type = Vector("i32", 16), Vector("i8" if signed else "u8", 64)

    def dot(builder, a, b):
        return (emit_dot_i8i8 if signed else emit_dot_u8i8)(builder, ir.Constant(acc_type.ir, [0] * 16), a, b)

    def by_dwords(builder, acc, values, weights):
        """Sums of four products as int16, then pairs of them with their weight. Packing takes four of a and four of c in turn."""
        first, second = (dot(builder, a, b) for a, b in values)
        order = [lanes[8 * half + 2 * part + (i % 4) // 2] for part in range(4) for half in range(2) for i in range(4)]
        name, i32x16, i16x32 = "llvm.x86.avx512.packssdw.512", acc.type, ir.VectorType(I16, 32)
        packed = builder.call(declare(builder, name, i16x32, [i32x16, i32x16]), [first, second])
        return _vpdpwssd(builder, acc, packed, _spread(builder, weights, order))

    def by_words(builder, acc, values, weights):
        """Sums of two products as int16, then pairs of them with their weight."""
        wide = target().lowering == "avx512-vnni"
        for half, pair in enumerate(values):
            a, b = signs_moved(builder, *pair) if signed else pair
            picked = _spread(builder, weights, [lanes[8 * half + i // 4] for i in range(32)])
            if wide:
                acc = _vpdpwssd(builder, acc, pairs_u8i8(builder, a, b), picked)
                continue
            pieces = zip(*(pieces_of(builder, v, n) for v, n in ((acc, 8), (a, 32), (b, 32), (picked, 16))), strict=True)
            acc = joined(builder, [builder.add(t, maddwd(builder, pairs_u8i8(builder, x, y), w)) for t, x, y, w in pieces])
        return acc

    def by_products(builder, acc, values, weights):
        """Sums of four products, each with its weight; all weights are widened first, once for all calls that read them."""
        wide = builder.sext(weights, ir.VectorType(I32, words.lanes))
        for half, (a, b) in enumerate(values):
            picked = builder.shuffle_vector(wide, wide, lane_constant([lanes[8 * half + i // 2] for i in range(16)]))
            acc = builder.add(acc, builder.mul(dot(builder, a, b), picked))
        return acc

    def by_quads(builder, acc, values, weights):
        """Sixteen values at a time, which have one weight or two: NEON multiplies by one lane of a register. Neighbours that have the same
        weights are summed first.

        The widened weights go through empty instructions: LLVM would pick the lanes before it widens them, each by itself.
        """
        wide = [kept(builder, four, "w") for four in pieces_of(builder, builder.sext(weights, ir.VectorType(I32, words.lanes)), 4)]
        parts = [part for a, b in values for part in zip(pieces_of(builder, a, 16), pieces_of(builder, b, 16), strict=True)]
        pairs, totals, sums = list(zip(lanes[::2], lanes[1::2], strict=True)), pieces_of(builder, acc, 4), None
        for i, (a, b) in enumerate(parts):
            sums = sdot(builder, sums or ir.Constant(ir.VectorType(I32, 4), [0] * 4), a, b)
            if pairs[i : i + 1] != pairs[i + 1 : i + 2]:
                (one, at), (two, other) = (divmod(lane, 4) for lane in pairs[i])
                other += 4 if one != two else 0
                weight = builder.shuffle_vector(wide[one], wide[two], lane_constant([at, at, other, other]))
                totals[i // 2 % 4] = builder.add(totals[i // 2 % 4], builder.mul(sums, weight))
                sums = None
        return joined(builder, totals)

    x86 = by_words if signed or largest <= PAIRED else by_products
    packed = by_dwords if largest <= PACKED and not signed else x86
    form = {"avx512-vnni": packed, "avx2": x86, "avx-vnni": x86, "neon-dot": by_quads}.get(target().lowering, by_products)

    @intrinsic
    def op(typing, acc, a, b, c, d, weights):
        def code(context, builder, signature, args):
            acc, a, b, c, d, weights = args
            return form(builder, acc, [(a, b), (c, d)], weights)

        return acc_type(acc_type, values_type, b, values_type, d, words), code

    return op


@intrinsic
def dot_i16(typing, a, b):
    """Sums of two neighbouring products of int16 lanes: (i16x2N, i16x2N) -> i32xN, N = 4, 8 or 16."""
    result = Vector("i32", a.lanes // 2)

    def code(context, builder, signature, args):
        a, b = args
        if target().lowering in ("avx512-vnni", "avx-vnni", "avx2"):
            width = 32 if target().lowering == "avx512-vnni" else 16
            pieces = [pieces_of(builder, v, min(width, v.type.count)) for v in (a, b)]
            return joined(builder, [maddwd(builder, *piece) for piece in zip(*pieces, strict=True)])
        wide = ir.VectorType(I32, a.type.count)
        product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
        halves = [builder.shuffle_vector(product, product, lane_constant(range(step, a.type.count, 2))) for step in range(2)]
        return builder.add(*halves)

    return result(a, b), code
