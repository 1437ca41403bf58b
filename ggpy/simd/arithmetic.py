"""fma, reductions, selection, rounding and square root on vectors and scalars."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .vectors import Vector, declare, intrinsic

FLOAT = ir.FloatType()


def emit_fma(builder, a, b, c):
    return builder.call(declare(builder, f"llvm.fma.v{a.type.count}f32", a.type, [a.type] * 3), [a, b, c])


@intrinsic
def fma(typing, a, b, c):
    """a * b + c with one rounding, float vectors of one width."""

    def code(context, builder, signature, args):
        return emit_fma(builder, *args)

    return a(a, b, c), code


def _unary(name: str):
    @intrinsic
    def op(typing, a):
        suffix = f"v{a.lanes}f32" if isinstance(a, Vector) else "f32"

        def code(context, builder, signature, args):
            return builder.call(declare(builder, f"llvm.{name}.{suffix}", args[0].type, [args[0].type]), args)

        return a(a), code

    return op


def _binary(name: str):
    @intrinsic
    def op(typing, a, b):
        suffix = f"v{a.lanes}f32" if isinstance(a, Vector) else "f32"

        def code(context, builder, signature, args):
            return builder.call(declare(builder, f"llvm.{name}.{suffix}", args[0].type, [args[0].type] * 2), args)

        return a(a, b), code

    return op


absolute = _unary("fabs")
round_even = _unary("rint")  # to the nearest integer, ties to even (the default rounding mode)
square_root = _unary("sqrt")
maximum = _binary("maxnum")  # the other operand where one is NaN
minimum = _binary("minnum")


@intrinsic
def sum_f32(typing, a):
    """Sum of the lanes by pairwise halving: one fixed order on every CPU."""

    def code(context, builder, signature, args):
        total, lanes = args[0], a.lanes
        while lanes > 1:
            lanes //= 2
            low = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes)))
            high = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes, 2 * lanes)))
            total = builder.fadd(builder.shuffle_vector(total, total, low), builder.shuffle_vector(total, total, high))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(a), code


@intrinsic
def sum_halves(typing, a):
    """The lower lanes' sum in the first lane and the upper lanes' in the middle one, each in the order of `sum_f32`; other lanes: any."""

    def code(context, builder, signature, args):
        total, span = args[0], a.lanes // 2
        while span > 1:
            span //= 2
            across = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), [i ^ span for i in range(a.lanes)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, across))
        return total

    return a(a), code


@intrinsic
def max_f32(typing, a):
    """The largest lane."""

    def code(context, builder, signature, args):
        return builder.call(declare(builder, f"llvm.vector.reduce.fmax.v{a.lanes}f32", FLOAT, [a.ir]), args)

    return types.float32(a), code


@intrinsic
def sum_i32(typing, a):
    """Sum of int32 lanes."""

    def code(context, builder, signature, args):
        return builder.call(declare(builder, f"llvm.vector.reduce.add.v{a.lanes}i32", ir.IntType(32), [a.ir]), args)

    return types.int32(a), code


@intrinsic
def where_below(typing, index, limit, a, b):
    """a where index < limit, else b; index and limit are int32 vectors, a and b vectors of as many lanes."""

    def code(context, builder, signature, args):
        return builder.select(builder.icmp_signed("<", args[0], args[1]), args[2], args[3])

    return a(index, limit, a, b), code


@intrinsic
def f16_from_bits(typing, bits):
    """The float16 whose bits are the lowest sixteen of an int64, as float32."""

    def code(context, builder, signature, args):
        half = builder.bitcast(builder.trunc(args[0], ir.IntType(16)), ir.HalfType())
        return builder.fpext(half, FLOAT)

    return types.float32(types.int64), code
