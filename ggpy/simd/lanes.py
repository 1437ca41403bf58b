"""Choosing between lanes, finding lanes, turning rows into lanes, and scratch memory on the stack."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import types

from .memory import I64, pointer
from .vectors import Vector, declare, f32x16, intrinsic, lane_constant

_SIXTEEN_LANES = 16


def _compare(builder, operator: str, vector: Vector, a, b):
    if vector.is_float:
        return builder.fcmp_ordered(operator, a, b)
    return builder.icmp_unsigned(operator, a, b) if vector.is_unsigned else builder.icmp_signed(operator, a, b)


@intrinsic
def where_less(typing, a, b, yes, no):
    """Lanes of `yes` where a < b, else of `no`. False where a float lane is NaN."""

    def code(context, builder, signature, args):
        return builder.select(_compare(builder, "<", a, args[0], args[1]), args[2], args[3])

    return yes(a, a, yes, yes), code


@intrinsic
def where_equal(typing, a, b, yes, no):
    """Lanes of `yes` where a == b, else of `no`. False where a float lane is NaN."""

    def code(context, builder, signature, args):
        return builder.select(_compare(builder, "==", a, args[0], args[1]), args[2], args[3])

    return yes(a, a, yes, yes), code


def _lane_bits(operator: str):
    @intrinsic
    def op(typing, a, b):
        def code(context, builder, signature, args):
            mask = builder.bitcast(_compare(builder, operator, a, args[0], args[1]), ir.IntType(a.lanes))
            return mask if a.lanes == 64 else builder.zext(mask, I64)

        return types.int64(a, a), code

    return op


lanes_equal = _lane_bits("==")
"""lanes_equal(a, b) -> int64 with bit i set where lane i of a equals that of b."""
lanes_less = _lane_bits("<")
"""lanes_less(a, b) -> int64 with bit i set where lane i of a is less than that of b."""


@intrinsic
def first_bit(typing, bits):
    """Index of the lowest set bit of an int64; 64 when there is none."""

    def code(context, builder, signature, args):
        count = declare(builder, "llvm.cttz.i64", I64, [I64, ir.IntType(1)])
        return builder.call(count, [args[0], ir.Constant(ir.IntType(1), 0)])

    return types.int64(types.int64), code


def _reduction(integer: str, unsigned: str, floating: str):
    @intrinsic
    def op(typing, a):
        def code(context, builder, signature, args):
            kind = floating if a.is_float else unsigned if a.is_unsigned else integer
            element = a.ir.element
            name = f"llvm.vector.reduce.{kind}.v{a.lanes}{'f' if a.is_float else 'i'}{32 if a.is_float else element.width}"
            flags = ("nnan",) if a.is_float else ()
            return builder.call(declare(builder, name, element, [a.ir]), args, fastmath=flags)

        return a.scalar(a), code

    return op


largest_lane = _reduction("smax", "umax", "fmax")
"""The largest lane, as a scalar. Float lanes must not be NaN; of 0 and -0 it is either."""
smallest_lane = _reduction("smin", "umin", "fmin")
"""The smallest lane, as a scalar. Float lanes must not be NaN; of 0 and -0 it is either."""


@intrinsic
def copy_sign(typing, magnitude, sign):
    """Float lanes of `magnitude` with the sign bits of `sign`."""

    def code(context, builder, signature, args):
        function = declare(builder, f"llvm.copysign.v{magnitude.lanes}f32", magnitude.ir, [magnitude.ir] * 2)
        return builder.call(function, args)

    return magnitude(magnitude, magnitude), code


def _integer_pair(name: str):
    """The smaller or larger of two integer vectors, lane by lane."""

    @intrinsic
    def op(typing, a, b):
        def code(context, builder, signature, args):
            full = f"llvm.{'u' if a.is_unsigned else 's'}{name}.v{a.lanes}i{a.ir.element.width}"
            return builder.call(declare(builder, full, a.ir, [a.ir] * 2), args)

        return a(a, a), code

    return op


larger = _integer_pair("max")
smaller = _integer_pair("min")


@intrinsic
def transpose(typing, upper, lower, stride, target, step):
    """Sixteen rows of sixteen float32 become sixteen vectors: the one at `target` + i * step holds value i of every row.

    Rows 0..7 lie at `upper` + r * stride, rows 8..15 at `lower` + r * stride; stride and step are in bytes.
    """

    def code(context, builder, signature, args):
        upper, lower, stride, target, step = args
        rows = []
        for r in range(_SIXTEEN_LANES):
            address = builder.add(upper if r < 8 else lower, builder.mul(stride, ir.Constant(I64, r % 8)))
            rows.append(builder.load(pointer(builder, address, f32x16.ir), align=1))
        for i, column in enumerate(_transposed(builder, rows)):
            address = builder.add(target, builder.mul(step, ir.Constant(I64, i)))
            builder.store(column, pointer(builder, address, f32x16.ir), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp, types.intp), code


def _transposed(builder, rows: list) -> list:
    """Four rounds of exchanges: in the round of `span`, rows r and r + span swap the lanes that differ in that bit of their index."""
    for span in (1, 2, 4, 8):
        even = lane_constant([i if not i & span else i - span + _SIXTEEN_LANES for i in range(_SIXTEEN_LANES)])
        odd = lane_constant([i + span if not i & span else i + _SIXTEEN_LANES for i in range(_SIXTEEN_LANES)])
        for r in range(_SIXTEEN_LANES):
            if not r & span:
                a, b = rows[r], rows[r + span]
                rows[r], rows[r + span] = builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd)
    return rows


def scratch(n_bytes: int):
    """scratch(1024)() -> address of that many bytes on the stack, 64-byte aligned, not cleared; each place that calls it has its own."""

    @intrinsic
    def op(typing):
        def code(context, builder, signature, args):
            with builder.goto_entry_block():  # in a loop it would grow the stack; numba's `alloca_once` clears the memory each time
                memory = builder.alloca(ir.ArrayType(ir.IntType(8), n_bytes))
                memory.align = 64
            return builder.ptrtoint(memory, I64)

        return types.intp(), code

    return op


def look_up(table: Sequence[float], index: Vector):
    """look_up(table, i32x16)(indices) -> f32x16: entries of a table of 32 float32, by the low five bits of each lane. Only for AVX-512."""
    half = ir.VectorType(ir.FloatType(), _SIXTEEN_LANES)
    low, high = ir.Constant(half, list(table[:16])), ir.Constant(half, list(table[16:]))

    @intrinsic
    def op(typing, indices):
        def code(context, builder, signature, args):
            name, i32x16 = "llvm.x86.avx512.vpermi2var.ps.512", ir.VectorType(ir.IntType(32), _SIXTEEN_LANES)
            function = declare(builder, name, half, [half, i32x16, half])
            found = None
            for first in range(0, index.lanes, _SIXTEEN_LANES):
                lanes = lane_constant(range(first, first + _SIXTEEN_LANES))
                part = builder.call(function, [low, builder.shuffle_vector(args[0], args[0], lanes), high])
                found = part if found is None else builder.shuffle_vector(found, part, lane_constant(range(first + _SIXTEEN_LANES)))
            return found

        return Vector("f32", index.lanes)(index), code

    return op
