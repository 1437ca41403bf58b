"""AMX in software: a handler of the signal that its instructions raise on a CPU without them.

The handler decodes the instruction at the context's instruction pointer, carries it out on tiles kept per thread, moves on, and goes on
with the next one as long as that is AMX too. Known are LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED and
TDPBF16PS, as in the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, with its checks: what would fault there, and
any other instruction, is not emulated. The handler then puts the signal's default back, and the process ends as it would have.

A thread's tiles are found by its thread pointer, from LDTILECFG to TILERELEASE; code must not be interrupted by other emulated code of its
own thread. Linux on x86-64 only.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import signal
import sys

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import alloca_once

from ggpy.kernels.options import inline, kernel
from ggpy.runtime.compiled import _link
from ggpy.simd.arithmetic import fma
from ggpy.simd.memory import (
    load,
    load_i32,
    load_i64,
    load_u8,
    load_u16,
    load_u32,
    pointer,
    store_f32,
    store_f32x16,
    store_i32,
    store_i64,
)
from ggpy.simd.vectors import bitcast, constant, declare, extract, f32x16, intrinsic, splat, u32x16

THREADS = 64  # that may use tiles at the same time
REGISTERS = 40  # offset of the general registers in Linux's ucontext_t: r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip
CONTEXT_BYTES = 1024
RIP = 16
ORDER = (13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7)  # where the register of each machine number is kept

_CONFIG, _TILES, _SLOT = 64, 128, 128 + 8 * 1024  # a slot: its thread at 0, the configuration, eight tiles
_DAZ_FTZ = 0x9FC0  # MXCSR: no exceptions, nearest even, denormals are zero both ways, as TDPBF16PS works whatever MXCSR says

_state = np.zeros(THREADS * _SLOT + 128, np.uint8)
_BASE = _state.ctypes.data + 64 & ~63
_RESET = np.zeros(1, np.int64)  # address of C's `signal`, or 0: leave the signal alone
_RESET_AT = _RESET.ctypes.data
_ORDER = np.array(ORDER, np.int64)
_ORDER_AT = _ORDER.ctypes.data

_I64 = ir.IntType(64)
_zero, _sixteen, _high = constant(f32x16, 0.0), constant(u32x16, 16), constant(u32x16, 0xFFFF0000)
_as_f32, _as_bits, _all, _all_bits, _lane = bitcast(u32x16, f32x16), bitcast(f32x16, u32x16), splat(f32x16), splat(u32x16), extract(f32x16)
_load_u32x16, _load_f32x16 = load(u32x16), load(f32x16)


@intrinsic
def _thread(typing):
    """The thread pointer: different for each thread, never 0."""

    def code(context, builder, signature, args):
        return builder.load(ir.Constant(_I64, 0).inttoptr(_I64.as_pointer(257)))  # 257: LLVM's address space relative to FS

    return types.int64(), code


@intrinsic
def _take(typing, address, owner):
    """Put `owner` at `address` if 0 is there; whether it was."""

    def code(context, builder, signature, args):
        done = builder.cmpxchg(pointer(builder, args[0], _I64), ir.Constant(_I64, 0), args[1], "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(done, 1), _I64)

    return types.int64(types.intp, types.int64), code


@intrinsic
def _read_mode(typing):
    def code(context, builder, signature, args):
        place = alloca_once(builder, ir.IntType(32))
        function = declare(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [ir.IntType(8).as_pointer()])
        builder.call(function, [builder.bitcast(place, ir.IntType(8).as_pointer())])
        return builder.load(place)

    return types.int32(), code


@intrinsic
def _set_mode(typing, mode):
    def code(context, builder, signature, args):
        place = alloca_once(builder, ir.IntType(32))
        builder.store(args[0], place)
        function = declare(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [ir.IntType(8).as_pointer()])
        builder.call(function, [builder.bitcast(place, ir.IntType(8).as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int32), code


@intrinsic
def _call_signal(typing, address, number):
    def code(context, builder, signature, args):
        function = ir.FunctionType(_I64, [ir.IntType(32), _I64])
        number = builder.trunc(args[1], ir.IntType(32))
        builder.call(builder.inttoptr(args[0], function.as_pointer()), [number, ir.Constant(_I64, 0)])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), code


@inline
def _slot():
    """This thread's slot, or 0."""
    me = _thread()
    for i in range(THREADS):
        if load_i64(_BASE + i * _SLOT) == me:
            return _BASE + i * _SLOT
    return 0


@inline
def _clear(at, count):
    for i in range(0, count, 64):
        store_f32x16(at + i, _zero())


@inline
def _release():
    slot = _slot()
    if slot != 0:
        _clear(slot + _CONFIG, _SLOT - _CONFIG)
        store_i64(slot, 0)


@inline
def _row_bytes(slot, tile):
    return np.int64(load_u16(slot + _CONFIG + 16 + 2 * tile))


@inline
def _rows(slot, tile):
    return np.int64(load_u8(slot + _CONFIG + 48 + tile))


@inline
def _configure(address):
    """LDTILECFG; False where it would fault."""
    palette, start = load_u8(address), load_u8(address + 1)
    if palette == 0:
        _release()
        return True
    valid = palette == 1 and start == 0
    for i in range(2, 64):
        if (i < 16 or 32 <= i < 48 or i >= 56) and load_u8(address + i) != 0:
            valid = False
    for tile in range(8):
        width, rows = load_u16(address + 16 + 2 * tile), load_u8(address + 48 + tile)
        if width > 64 or rows > 16 or (width == 0) != (rows == 0):
            valid = False
    if not valid:
        return False
    slot = _slot()
    if slot == 0:
        me = _thread()
        for i in range(THREADS):
            if slot == 0 and _take(_BASE + i * _SLOT, me) != 0:
                slot = _BASE + i * _SLOT
    if slot == 0:
        return False
    _clear(slot + _TILES, 8 * 1024)
    store_f32x16(slot + _CONFIG, _load_f32x16(address))
    return True


@inline
def _is_usable(slot, tile):
    return slot != 0 and 0 <= tile < 8 and _rows(slot, tile) != 0 and _row_bytes(slot, tile) % 4 == 0


@inline
def _copy_row(source, to, width):
    if width == 64:
        store_f32x16(to, _load_f32x16(source))
    else:
        for i in range(0, width, 4):
            store_i32(to + i, load_i32(source + i))


@inline
def _load_tile(slot, tile, address, stride):
    to, width = slot + _TILES + 1024 * tile, _row_bytes(slot, tile)
    _clear(to, 1024)
    for row in range(_rows(slot, tile)):
        _copy_row(address + row * stride, to + 64 * row, width)


@inline
def _store_tile(slot, tile, address, stride):
    source, width = slot + _TILES + 1024 * tile, _row_bytes(slot, tile)
    for row in range(_rows(slot, tile)):
        _copy_row(source + 64 * row, address + row * stride, width)


@inline
def _multiply(slot, to, a, b):
    """TDPBF16PS; False where it would fault."""
    if a in (to, b) or to == b or not (_is_usable(slot, to) and _is_usable(slot, a) and _is_usable(slot, b)):
        return False
    rows, width, depth = _rows(slot, to), _row_bytes(slot, to), _rows(slot, b)
    if rows != _rows(slot, a) or width != _row_bytes(slot, b) or _row_bytes(slot, a) != 4 * depth:
        return False
    to, a, b = slot + _TILES + 1024 * to, slot + _TILES + 1024 * a, slot + _TILES + 1024 * b
    for m in range(rows):
        even, odd = _zero(), _zero()
        for k in range(depth):
            left, right = _all_bits(load_u32(a + 64 * m + 4 * k)), _load_u32x16(b + 64 * k)
            even = fma(_as_f32(left << _sixteen()), _as_f32(right << _sixteen()), even)
            odd = fma(_as_f32(left & _high()), _as_f32(right & _high()), odd)
        total = _load_f32x16(to + 64 * m) + (even + odd)
        if width == 64:
            store_f32x16(to + 64 * m, total)
        else:
            for n in range(width // 4):
                store_f32(to + 64 * m + 4 * n, _lane(total, n))
    return True


@inline
def _register(registers, number):
    return load_i64(registers + 8 * load_i64(_ORDER_AT + 8 * number))


@inline
def _step(registers):
    """Carry out the instruction at the instruction pointer; False where it is not one of these or would fault."""
    at = load_i64(registers + 8 * RIP)
    if load_u8(at) != 0xC4:
        return False
    first, second, code, modrm = (
        np.int64(load_u8(at + 1)),
        np.int64(load_u8(at + 2)),
        np.int64(load_u8(at + 3)),
        np.int64(load_u8(at + 4)),
    )
    prefix, other = second & 3, (~second >> 3) & 15  # 0 none, 1 66, 2 F3, 3 F2; the register in VEX.vvvv
    mod, reg, rm = modrm >> 6, ((modrm >> 3) & 7) + (0 if first & 0x80 else 8), modrm & 7
    if first & 31 != 2 or second & 0x84 != 0:  # map 0F38, W0, 128 bits
        return False
    slot, address, stride, length, sib = _slot(), 0, 0, 5, False
    if mod != 3:
        base, base_known = rm + (0 if first & 0x20 else 8), True
        if rm == 4:
            sib, byte, length = True, np.int64(load_u8(at + 5)), 6
            base = (byte & 7) + (0 if first & 0x20 else 8)
            index = ((byte >> 3) & 7) + (0 if first & 0x40 else 8)
            if index != 4:
                stride = _register(registers, index) << (byte >> 6)
        if mod == 0 and base & 7 == 5:
            base_known = False
            address = np.int64(load_i32(at + length)) + (0 if sib else at + length + 4)  # relative to the next instruction, without SIB
            length += 4
        elif mod == 1:
            byte = np.int64(load_u8(at + length))
            address = byte - 256 if byte > 127 else byte
            length += 1
        elif mod == 2:
            address = np.int64(load_i32(at + length))
            length += 4
        if base_known:
            address += _register(registers, base)
    done = False
    if code == 0x49 and other == 0 and reg == 0 and mod != 3 and prefix == 0:
        done = _configure(address + stride)
    elif code == 0x49 and other == 0 and reg == 0 and mod != 3 and prefix == 1:
        if slot == 0:
            _clear(address + stride, 64)
        else:
            store_f32x16(address + stride, _load_f32x16(slot + _CONFIG))
        done = True
    elif code == 0x49 and other == 0 and modrm == 0xC0 and prefix == 0:
        _release()
        done = True
    elif code == 0x49 and other == 0 and mod == 3 and rm == 0 and prefix == 3 and _is_usable(slot, reg):
        _clear(slot + _TILES + 1024 * reg, 1024)
        done = True
    elif code == 0x4B and other == 0 and sib and (prefix == 3 or prefix == 1) and _is_usable(slot, reg):
        _load_tile(slot, reg, address, stride)
        done = True
    elif code == 0x4B and other == 0 and sib and prefix == 2 and _is_usable(slot, reg):
        _store_tile(slot, reg, address, stride)
        done = True
    elif code == 0x5C and mod == 3 and prefix == 2:
        done = _multiply(slot, reg, rm + (0 if first & 0x20 else 8), other)
    if done:
        store_i64(registers + 8 * RIP, at + length)
    return done


@kernel
def handle(number, info, context):
    """The signal's handler: (signal number, siginfo_t *, ucontext_t *)."""
    mode = _read_mode()
    _set_mode(np.int32(_DAZ_FTZ))
    steps = 0
    while _step(context + REGISTERS):
        steps += 1
    if steps == 0 and load_i64(_RESET_AT) != 0:
        _call_signal(load_i64(_RESET_AT), number & 0xFF)
    _set_mode(mode)


def is_possible() -> bool:
    """Whether this system's contexts are those that the handler reads."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


@functools.cache
def handler() -> int:
    """The handler's address."""
    return _link(*handle.emit())


class _SignalAction(ctypes.Structure):
    """glibc's struct sigaction on x86-64."""

    _fields_ = (("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int), ("restorer", ctypes.c_void_p))


@functools.cache
def install() -> None:
    """Emulate AMX in all threads of this process from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    _RESET[0] = ctypes.cast(libc.signal, ctypes.c_void_p).value or 0
    takes_context = 4
    action = _SignalAction(handler(), (ctypes.c_ulong * 16)(), takes_context, None)
    if libc.sigaction(int(signal.SIGILL), ctypes.byref(action), None):
        raise OSError(ctypes.get_errno(), "no handler for SIGILL")


def run(code: int, registers: dict[int, int]) -> int:
    """Emulate the instructions from address `code` on until one is not AMX, without any signal; returns that one's address.

    registers: contents by machine number (0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8 … 15); the others are 0.
    """
    context = np.zeros(CONTEXT_BYTES // 8, np.int64)
    for number, value in registers.items():
        context[REGISTERS // 8 + ORDER[number]] = value
    context[REGISTERS // 8 + RIP] = code
    saved, _RESET[0] = int(_RESET[0]), 0
    try:
        ctypes.CFUNCTYPE(None, *[ctypes.c_ssize_t] * 3)(handler())(0, 0, context.ctypes.data)
    finally:
        _RESET[0] = saved
    return int(context[REGISTERS // 8 + RIP])
