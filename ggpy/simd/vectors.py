"""Vector types for Numba, their operators, and how values move between them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

intrinsic: Callable[[Callable], Callable[..., Any]] = extending.intrinsic
"""numba's `intrinsic`, typed as what it returns to callers: the function without its first parameter, the typing context."""

I32 = ir.IntType(32)
ELEMENTS = {
    "i8": (ir.IntType(8), types.int8),
    "u8": (ir.IntType(8), types.uint8),
    "i16": (ir.IntType(16), types.int16),
    "u16": (ir.IntType(16), types.uint16),
    "i32": (I32, types.int32),
    "u32": (I32, types.uint32),
    "i64": (ir.IntType(64), types.int64),
    "u64": (ir.IntType(64), types.uint64),
    "f16": (ir.HalfType(), types.float16),
    "f32": (ir.FloatType(), types.float32),
}  # name: (LLVM type, Numba scalar type)


class Vector(types.Type):
    """`lanes` elements of one kind: `Vector("u8", 32)` is named u8x32."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        self.scalar = ELEMENTS[element][1]
        self.ir = ir.VectorType(ELEMENTS[element][0], lanes)
        super().__init__(name=f"{element}x{lanes}")

    @property
    def is_float(self) -> bool:
        return self.element.startswith("f")

    @property
    def is_unsigned(self) -> bool:
        return self.element.startswith("u")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir)


u8x8, u8x16, u8x32, u8x64 = (Vector("u8", n) for n in (8, 16, 32, 64))
i8x16, i8x32, i8x64 = (Vector("i8", n) for n in (16, 32, 64))
i16x8, i16x16, i16x32 = (Vector("i16", n) for n in (8, 16, 32))
u16x16, u16x32 = Vector("u16", 16), Vector("u16", 32)
i32x8, i32x16, u32x4, u32x8, u32x16 = Vector("i32", 8), Vector("i32", 16), Vector("u32", 4), Vector("u32", 8), Vector("u32", 16)
f16x16, f32x4, f32x8, f32x16 = Vector("f16", 16), Vector("f32", 4), Vector("f32", 8), Vector("f32", 16)


def lane_constant(indices: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(indices)), list(indices))


def declare(builder, name: str, result, arguments):
    """The LLVM function `name`, declared once per module."""
    return builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(result, arguments), name=name)


def emit_splat(builder, scalar, vector_ir):
    undefined = ir.Constant(vector_ir, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, lane_constant([0] * vector_ir.count))


def kept(builder, value, register: str):
    """The same value in a register of that kind; LLVM does not see what it is."""
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", f"={register},0", [value], side_effect=False)


def splat(vector: Vector):
    """splat(f32x16)(scalar) -> vector with `scalar` in every lane."""

    @intrinsic
    def op(typing, scalar):
        def code(context, builder, signature, args):
            return emit_splat(builder, args[0], vector.ir)

        return vector(vector.scalar), code

    return op


def constant(vector: Vector, values: Sequence[float] | float):
    """constant(f32x16, 1.0)() -> the same vector each time; one number fills all lanes."""
    lanes = list(values) if isinstance(values, Sequence) else [values] * vector.lanes

    @intrinsic
    def op(typing):
        def code(context, builder, signature, args):
            return ir.Constant(vector.ir, lanes)

        return vector(), code

    return op


def shuffle(source: Vector, indices: Sequence[int]):
    """shuffle(source, indices)(a, b) -> lanes picked by constant indices from a (0…) and b (source.lanes…)."""
    result = Vector(source.element, len(indices))

    @intrinsic
    def op(typing, a, b):
        def code(context, builder, signature, args):
            return builder.shuffle_vector(args[0], args[1], lane_constant(indices))

        return result(source, source), code

    return op


def permute(source: Vector, indices: Sequence[int]):
    """permute(source, indices)(a) -> lanes of a, picked by constant indices."""
    result = Vector(source.element, len(indices))

    @intrinsic
    def op(typing, a):
        def code(context, builder, signature, args):
            return builder.shuffle_vector(args[0], args[0], lane_constant(indices))

        return result(source), code

    return op


def concat(source: Vector):
    """concat(u8x32)(a, b) -> u8x64."""
    return shuffle(source, range(2 * source.lanes))


def extract(source: Vector):
    """extract(i32x8)(vector, lane) -> scalar; the lane may be computed."""

    @intrinsic
    def op(typing, vector, lane):
        def code(context, builder, signature, args):
            return builder.extract_element(args[0], builder.trunc(args[1], I32))

        return source.scalar(source, types.int64), code

    return op


def bitcast(source, result):
    """Same bits, other type; either side may be a vector or a Numba scalar."""
    scalar_ir = ir.FloatType() if result == types.float32 else None
    result_ir = result.ir if isinstance(result, Vector) else scalar_ir or ir.IntType(result.bitwidth)

    @intrinsic
    def op(typing, a):
        def code(context, builder, signature, args):
            return builder.bitcast(args[0], result_ir)

        return result(source), code

    return op


def convert(source: Vector, result: Vector):
    """Lane-wise value conversion: integers widen by their own sign or truncate, int to float rounds to nearest, f16 and f32 convert."""

    def emit(builder, a):
        if source.is_float and result.is_float:
            return builder.fpext(a, result.ir) if source.element == "f16" else builder.fptrunc(a, result.ir)
        if source.is_float:
            return builder.fptoui(a, result.ir) if result.is_unsigned else builder.fptosi(a, result.ir)
        if result.is_float:
            return builder.uitofp(a, result.ir) if source.is_unsigned else builder.sitofp(a, result.ir)
        if source.ir.element.width > result.ir.element.width:
            return builder.trunc(a, result.ir)
        return builder.zext(a, result.ir) if source.is_unsigned else builder.sext(a, result.ir)

    @intrinsic
    def op(typing, a):
        def code(context, builder, signature, args):
            return emit(builder, args[0])

        return result(source), code

    return op


def _operator(python_operator, integer: str, floating: str | None = None, unsigned: str | None = None) -> None:
    """Give vectors of one LLVM type an operator; the result is of the left one's type.

    By a typing template and its lowering: an `overload` is analysed anew at each use, a seventh of the time that kernels take to compile.
    """

    @infer_global(python_operator)  # pyright: ignore[reportOptionalCall]
    class OnVectors(AbstractTemplate):
        def generic(self, args, kws):
            match args:
                case (Vector() as a, Vector() as b) if a.ir == b.ir and not kws:
                    return signature(a, a, b)
            return None

    @lower_builtin(python_operator, Vector, Vector)
    def lower(context, builder, typed, args):
        vector = typed.return_type
        name = floating if floating and vector.is_float else (unsigned if unsigned and vector.is_unsigned else integer)
        return getattr(builder, name)(*args)


_operator(operator.add, "add", "fadd")
_operator(operator.sub, "sub", "fsub")
_operator(operator.mul, "mul", "fmul")
_operator(operator.truediv, "sdiv", "fdiv")
_operator(operator.and_, "and_")
_operator(operator.or_, "or_")
_operator(operator.xor, "xor")
_operator(operator.lshift, "shl")
_operator(operator.rshift, "ashr", unsigned="lshr")
