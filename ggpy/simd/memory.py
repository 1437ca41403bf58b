"""Loads, stores, prefetch and atomics on plain addresses. An address is an `intp`; nothing here is bounds-checked.

Callers hand in addresses whose extent was checked at the Python edge, before a tape was recorded.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .vectors import ELEMENTS, I32, Vector, declare, emit_splat, intrinsic, lane_constant
from .vectors import f16x16 as _f16x16
from .vectors import f32x4 as _f32x4
from .vectors import f32x8 as _f32x8
from .vectors import f32x16 as _f32x16
from .vectors import i8x16 as _i8x16
from .vectors import i8x32 as _i8x32
from .vectors import i8x64 as _i8x64
from .vectors import i16x16 as _i16x16
from .vectors import i32x8 as _i32x8
from .vectors import i32x16 as _i32x16
from .vectors import u8x16 as _u8x16
from .vectors import u8x32 as _u8x32
from .vectors import u8x64 as _u8x64
from .vectors import u16x16 as _u16x16
from .vectors import u32x4 as _u32x4

I64 = ir.IntType(64)

LINE = 64  # bytes of a cache line
FIRST_LEVEL, SECOND_LEVEL = 3, 2  # LLVM's numbers of the cache that is to keep what was prefetched


def pointer(builder, address, pointee):
    return builder.inttoptr(address, pointee.as_pointer())


def load(vector: Vector):
    """load(u8x32)(address) -> vector; no alignment assumed."""

    @intrinsic
    def op(typing, address):
        def code(context, builder, signature, args):
            return builder.load(pointer(builder, args[0], vector.ir), align=1)

        return vector(types.intp), code

    return op


def store(vector: Vector):
    """store(f32x16)(address, value); no alignment assumed."""

    @intrinsic
    def op(typing, address, value):
        def code(context, builder, signature, args):
            builder.store(args[1], pointer(builder, args[0], vector.ir), align=1)
            return context.get_dummy_value()

        return types.void(types.intp, vector), code

    return op


def load_scalar(element: str):
    """load_scalar("f16")(address) -> float32 for f16 (widened), else the element's own type."""
    llvm, numba_type = ELEMENTS[element]
    result = types.float32 if element == "f16" else numba_type

    @intrinsic
    def op(typing, address):
        def code(context, builder, signature, args):
            value = builder.load(pointer(builder, args[0], llvm), align=1)
            return builder.fpext(value, ir.FloatType()) if element == "f16" else value

        return result(types.intp), code

    return op


def store_scalar(element: str):
    """store_scalar("f16")(address, value): a float32 value is rounded to nearest even for f16."""
    llvm, numba_type = ELEMENTS[element]
    source = types.float32 if element == "f16" else numba_type

    @intrinsic
    def op(typing, address, value):
        def code(context, builder, signature, args):
            value = builder.fptrunc(args[1], llvm) if element == "f16" else args[1]
            builder.store(value, pointer(builder, args[0], llvm), align=1)
            return context.get_dummy_value()

        return types.void(types.intp, source), code

    return op


load_i8, load_u8, load_u16 = (load_scalar(e) for e in ("i8", "u8", "u16"))
load_i32, load_u32, load_i64 = (load_scalar(e) for e in ("i32", "u32", "i64"))
load_f16, load_f32 = load_scalar("f16"), load_scalar("f32")
store_i8, store_u8, store_i16, store_u16 = (store_scalar(e) for e in ("i8", "u8", "i16", "u16"))
store_i32, store_u32, store_i64 = (store_scalar(e) for e in ("i32", "u32", "i64"))
store_f16, store_f32 = store_scalar("f16"), store_scalar("f32")

load_u8x16, load_u8x32, load_u8x64 = load(_u8x16), load(_u8x32), load(_u8x64)
load_i8x16, load_i8x32, load_i8x64 = load(_i8x16), load(_i8x32), load(_i8x64)
load_i16x16, load_u16x16 = load(_i16x16), load(_u16x16)
load_i32x8, load_i32x16, load_u32x4 = load(_i32x8), load(_i32x16), load(_u32x4)
load_f16x16, load_f32x4, load_f32x8, load_f32x16 = load(_f16x16), load(_f32x4), load(_f32x8), load(_f32x16)
store_u8x16, store_u8x32, store_u8x64 = store(_u8x16), store(_u8x32), store(_u8x64)
store_i8x16, store_i32x16 = store(_i8x16), store(_i32x16)
store_f16x16, store_f32x8, store_f32x16 = store(_f16x16), store(_f32x8), store(_f32x16)


@intrinsic
def broadcast_i8x64(typing, address):
    """Four int8 at `address`, repeated sixteen times."""

    def code(context, builder, signature, args):
        four = builder.load(pointer(builder, args[0], I32), align=1)
        return builder.bitcast(emit_splat(builder, four, ir.VectorType(I32, 16)), _i8x64.ir)

    return _i8x64(types.intp), code


def emit_prefetch(builder, address, level: int) -> None:
    """Ask for the cache line at `address`, to be read soon, in the cache of that level and those below it."""
    byte_pointer = ir.IntType(8).as_pointer()
    function = declare(builder, "llvm.prefetch.p0", ir.VoidType(), [byte_pointer, I32, I32, I32])
    read, keep, data = (ir.Constant(I32, n) for n in (0, level, 1))
    builder.call(function, [builder.inttoptr(address, byte_pointer), read, keep, data])


@intrinsic
def prefetch(typing, address):
    """Ask for the cache line at `address`, to be read once and soon. Any address is allowed, mapped or not."""

    def code(context, builder, signature, args):
        emit_prefetch(builder, args[0], FIRST_LEVEL)
        return context.get_dummy_value()

    return types.void(types.intp), code


@intrinsic
def atomic_add(typing, address, value):
    """Add to the int64 at `address`, all threads in one order; returns the value before."""

    def code(context, builder, signature, args):
        return builder.atomic_rmw("add", pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.intp, types.int64), code


@intrinsic
def atomic_load(typing, address):
    """The int64 at `address`; what its writer stored before is visible after."""

    def code(context, builder, signature, args):
        return builder.load_atomic(pointer(builder, args[0], I64), "acquire", 8)

    return types.int64(types.intp), code


@intrinsic
def atomic_store(typing, address, value):
    """Set the int64 at `address`; who reads it there sees all that was stored before."""

    def code(context, builder, signature, args):
        builder.store_atomic(args[1], pointer(builder, args[0], I64), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), code


@intrinsic
def atomic_replace(typing, address, expected, value):
    """Set the int64 at `address` to `value` if it is `expected`; returns what it was before: `expected` if it was set."""

    def code(context, builder, signature, args):
        pair = builder.cmpxchg(pointer(builder, args[0], I64), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.int64(types.intp, types.int64, types.int64), code


@intrinsic
def pause(typing):
    """Let the processor idle for some tens of nanoseconds, between two looks at memory that another thread will change."""

    def code(context, builder, signature, args):
        if builder.module.triple.startswith(("x86_64", "i686")):
            builder.call(declare(builder, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
        elif builder.module.triple.startswith(("aarch64", "arm64")):
            builder.call(declare(builder, "llvm.aarch64.hint", ir.VoidType(), [I32]), [ir.Constant(I32, 1)])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def atomic_min(typing, address, value):
    """Lower the int64 at `address` to `value` if that is smaller; returns the value before."""

    def code(context, builder, signature, args):
        return builder.atomic_rmw("min", pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.intp, types.int64), code


@intrinsic
def atomic_max(typing, address, value):
    """Raise the int64 at `address` to `value` if that is larger; returns the value before."""

    def code(context, builder, signature, args):
        return builder.atomic_rmw("max", pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.intp, types.int64), code


@intrinsic
def scatter_i8x16(typing, address, stride, value):
    """Store sixteen int8 as four pieces of four bytes, `stride` bytes apart."""

    def code(context, builder, signature, args):
        address, stride, value = args
        pieces = builder.bitcast(value, ir.VectorType(I32, 4))
        for i in range(4):
            at = builder.add(address, builder.mul(stride, ir.Constant(I64, i)))
            builder.store(builder.extract_element(pieces, ir.Constant(I32, i)), pointer(builder, at, I32), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, _i8x16), code


def scatter(vector: Vector):
    """scatter(f32x8)(address, stride, value): each lane on its own, `stride` bytes apart."""

    @intrinsic
    def op(typing, address, stride, value):
        def code(context, builder, signature, args):
            address, stride, value = args
            for i in range(vector.lanes):
                at = builder.add(address, builder.mul(stride, ir.Constant(I64, i)))
                lane = builder.extract_element(value, ir.Constant(I32, i))
                builder.store(lane, pointer(builder, at, vector.ir.element), align=1)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, vector), code

    return op


@intrinsic
def load_f16_pairs(typing, first, second):
    """Two neighbouring float16 at each of two places, widened to f32x4."""

    def code(context, builder, signature, args):
        found = ir.Constant(ir.VectorType(I32, 4), [0] * 4)
        for i, address in enumerate(args):
            found = builder.insert_element(found, builder.load(pointer(builder, address, I32), align=1), ir.Constant(I32, i))
        halves = builder.bitcast(found, ir.VectorType(ir.HalfType(), 8))
        return builder.fpext(builder.shuffle_vector(halves, halves, lane_constant(range(4))), _f32x4.ir)

    return _f32x4(types.intp, types.intp), code


@intrinsic
def gather_f16x16(typing, address, stride):
    """Two neighbouring float16 at each of eight places, `stride` bytes apart, widened to f32x16."""

    def code(context, builder, signature, args):
        address, stride = args
        found = ir.Constant(ir.VectorType(I32, 8), ir.Undefined)
        for i in range(8):
            at = builder.add(address, builder.mul(stride, ir.Constant(I64, i)))
            found = builder.insert_element(found, builder.load(pointer(builder, at, I32), align=1), ir.Constant(I32, i))
        return builder.fpext(builder.bitcast(found, ir.VectorType(ir.HalfType(), 16)), _f32x16.ir)

    return _f32x16(types.intp, types.intp), code


def gather(vector: Vector):
    """gather(u8x8)(address, stride): a lane from each of so many places, `stride` bytes apart."""

    @intrinsic
    def op(typing, address, stride):
        def code(context, builder, signature, args):
            found = ir.Constant(vector.ir, ir.Undefined)
            for i in range(vector.lanes):
                at = builder.add(args[0], builder.mul(args[1], ir.Constant(I64, i)))
                lane = builder.load(pointer(builder, at, vector.ir.element), align=1)
                found = builder.insert_element(found, lane, ir.Constant(I32, i))
            return found

        return vector(types.intp, types.intp), code

    return op
