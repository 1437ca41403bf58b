"""The loop each thread runs: walk the tape, call its kernels, wait for the others where an op needs all of the one before.

A tape is int64 rows of 20 words: [kernel address, 1 if all threads must meet after it, the kernel's words …].
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from ggpy.kernels.claims import UNIT_BITS
from ggpy.kernels.options import inline, kernel
from ggpy.simd.memory import I64, atomic_add, atomic_load, load_i64
from ggpy.simd.vectors import declare, intrinsic

TAPE_BYTES = 20 * 8
SPINS = 4000  # about 40 us of spinning before a thread offers its processor to others


@intrinsic
def _call_kernel(typing, address, args, ith, crew):
    def code(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), code


@intrinsic
def _call_yield(typing, address):
    """Call the C function `int sched_yield(void)` whose address Python hands in: kernels themselves link to nothing."""

    def code(context, builder, signature, arguments):
        function = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.intp), code


@intrinsic
def _pause(typing):
    def code(context, builder, signature, arguments):
        if builder.module.triple.startswith(("x86_64", "i686")):
            builder.call(declare(builder, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
        elif builder.module.triple.startswith(("aarch64", "arm64")):
            i32 = ir.IntType(32)
            builder.call(declare(builder, "llvm.aarch64.hint", ir.VoidType(), [i32]), [ir.Constant(i32, 1)])
        return context.get_dummy_value()

    return types.void(), code


@inline
def _barrier(state, give_way, nth):
    """`state`: int64 arrivals, and on the next cache line the phase. Returns when all threads have come here."""
    phase = atomic_load(state + 64)
    if atomic_add(state, 1) == nth - 1:
        atomic_add(state, -nth)
        atomic_add(state + 64, 1)
        return
    spins = 0
    while atomic_load(state + 64) == phase:
        _pause()
        spins += 1
        if spins > SPINS:
            _call_yield(give_way)


@kernel
def run(args, ith, nth):
    """words: tape address, number of ops, barrier state address, address of sched_yield, walk. All threads meet after the last op."""
    tape, count = load_i64(args), load_i64(args + 8)
    state, give_way = load_i64(args + 16), load_i64(args + 24)
    crew = (load_i64(args + 32) << UNIT_BITS) + nth
    for i in range(count):
        _call_kernel(load_i64(tape), tape + 16, ith, crew)
        if nth > 1 and (load_i64(tape + 8) != 0 or i == count - 1):
            _barrier(state, give_way, nth)
        tape += TAPE_BYTES
