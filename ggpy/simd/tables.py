"""Table look-ups: bytes by four bits, and entries of a grid, each several values, by nine to eleven bits.

A table is a constant of the kernel that reads it, beside its code in the object file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from .dot import joined, pieces_of
from .target import target
from .vectors import Vector, declare, intrinsic, kept, lane_constant, u8x64, u16x32

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
MOST_PERMUTED = 512  # entries; of more, reading all of them for 32 takes longer than 32 loads
_SHUFFLES = {"avx512-vnni": (64, "llvm.x86.avx512.pshuf.b.512"), "avx-vnni": (32, "llvm.x86.avx2.pshuf.b"),
             "avx2": (32, "llvm.x86.avx2.pshuf.b"), "neon-dot": (16, "llvm.aarch64.neon.tbl1.v16i8")}  # fmt: skip


def byte_table(entries: Sequence[int], indices: Vector):
    """byte_table(entries, u8x64)(indices) -> of sixteen bytes that which each index names, all below 16; i8 if one is negative."""
    result = Vector("i8" if min(entries) < 0 else "u8", indices.lanes)
    assert len(entries) == 16

    def shuffled(builder, index):
        most, name = _SHUFFLES[target().lowering]
        width = min(most, index.type.count)
        name = name if width == most else {32: "llvm.x86.avx2.pshuf.b", 16: "llvm.x86.ssse3.pshuf.b.128"}[width]
        table = ir.Constant(ir.VectorType(I8, width), list(entries) * (width // 16))
        function = declare(builder, name, table.type, [table.type] * 2)
        return joined(builder, [builder.call(function, [table, piece]) for piece in pieces_of(builder, index, width)])

    def selected(builder, index):
        """By one bit of the index after the other: half of what is left."""
        left = [ir.Constant(index.type, [entry] * index.type.count) for entry in entries]
        for bit in range(4):
            own = ir.Constant(index.type, [1 << bit] * index.type.count)
            is_set = builder.icmp_unsigned("==", builder.and_(index, own), own)
            left = [builder.select(is_set, odd, even) for even, odd in zip(left[::2], left[1::2], strict=True)]
        return left[0]

    @intrinsic
    def op(typing, index):
        def code(context, builder, signature, args):
            return (shuffled if target().lowering in _SHUFFLES else selected)(builder, args[0])

        return result(indices), code

    return op


def grid(entries: np.ndarray, levels: Sequence[int], bits: int):
    """(look_up, take_0, take_1, ...): the values of a grid's entries, 64 at a time, each u8x64.

    entries: uint16 (n,), n a multiple of 64; each holds 16 / bits values, the first in the lowest bits, as numbers of `levels`.
    look_up(indices u16x32) -> what take_c(found) makes u8x64 of: the values of entries 4 * bits * c … 4 * bits * (c + 1) - 1 of the 32.
    """
    calls, each = 8 // bits, 4 * bits
    pack = target().has_byte_permute and len(entries) <= MOST_PERMUTED
    return (_permuted if pack else _loaded)(entries, levels, bits, calls, each)


def _permuted(entries: np.ndarray, levels: Sequence[int], bits: int, calls: int, each: int):
    """Entries stay packed: 64 of them are two registers, of which one instruction takes 32 by their index.

    What is found is kept in an order in which every 64 bits have the eight values that each `take` gives there.
    """
    beside = each // 8
    order = [lane % 4 // beside * each + lane // 4 * beside + lane % beside for lane in range(32)]

    @intrinsic
    def look_up(typing, indices):
        def code(context, builder, signature, args):
            index = builder.shuffle_vector(args[0], args[0], lane_constant(order))
            vector = index.type
            function = declare(builder, "llvm.x86.avx512.vpermi2var.hi.512", vector, [vector] * 3)
            parts = [ir.Constant(vector, [int(entry) for entry in entries[i : i + 32]]) for i in range(0, len(entries), 32)]
            found = [builder.call(function, [low, index, high]) for low, high in zip(parts[::2], parts[1::2], strict=True)]
            bit = 64
            while len(found) > 1:
                own = ir.Constant(vector, [bit] * 32)
                is_set = builder.icmp_unsigned("!=", builder.and_(index, own), ir.Constant(vector, [0] * 32))
                found = [builder.select(is_set, odd, even) for even, odd in zip(found[::2], found[1::2], strict=True)]
                bit *= 2
            return found[0]

        return u16x32(u16x32), code

    def take(c: int):
        @intrinsic
        def op(typing, found):
            def code(context, builder, signature, args):
                """Each value to the lowest bits of a byte; what is above it does not matter."""
                vector = ir.VectorType(I8, 64)
                shifts = ir.Constant(vector, [64 // calls * c + bits * (i % 8) for i in range(64)])
                shift = declare(builder, "llvm.x86.avx512.pmultishift.qb.512", vector, [vector] * 2)
                index = builder.call(shift, [shifts, builder.bitcast(args[0], vector)])
                table = ir.Constant(vector, [levels[i % (1 << bits) % len(levels)] for i in range(64)])
                return builder.call(declare(builder, "llvm.x86.avx512.permvar.qi.512", vector, [vector] * 2), [table, index])

            return u8x64(u16x32), code

        return op

    return look_up, *(take(c) for c in range(calls))


def _loaded(entries: np.ndarray, levels: Sequence[int], bits: int, calls: int, each: int):
    """Entries as they are wanted, in memory, one load each.

    Four indices leave their vector together; LLVM, if it saw that, would take each by itself.
    """
    width = 8 * 16 // bits
    fields = entries[:, None] >> np.arange(0, 16, bits) & (1 << bits) - 1
    unpacked = np.take(np.array(levels, np.uint8), fields, mode="clip").astype(np.uint8).view(f"<u{width // 8}").ravel()

    @intrinsic
    def look_up(typing, indices):
        def code(context, builder, signature, args):
            return args[0]

        return u16x32(u16x32), code

    def take(c: int):
        @intrinsic
        def op(typing, indices):
            def code(context, builder, signature, args):
                element = ir.IntType(width)
                table = _constant_table(builder, unpacked, element)
                found, fours = ir.Constant(ir.VectorType(element, each), ir.Undefined), builder.bitcast(args[0], ir.VectorType(I64, 8))
                for i in range(each):
                    lane = each * c + i
                    if lane % 4 == 0:
                        four = kept(builder, builder.extract_element(fours, ir.Constant(I32, lane // 4)), "r")
                    index = builder.and_(builder.lshr(four, ir.Constant(I64, 16 * (lane % 4))), ir.Constant(I64, 0xFFFF))
                    entry = builder.load(builder.gep(table, [ir.Constant(I64, 0), index]))
                    found = builder.insert_element(found, entry, ir.Constant(I32, i))
                return builder.bitcast(found, ir.VectorType(I8, 64))

            return u8x64(u16x32), code

        return op

    return look_up, *(take(c) for c in range(calls))


def _constant_table(builder, entries: np.ndarray, element) -> Any:
    """A constant of the module, the same for the same entries; LLVM keeps one of equal ones."""
    name = f"ggpy.table.{hashlib.sha256(entries.tobytes()).hexdigest()[:16]}"
    known = builder.module.globals.get(name)
    if known is not None:
        return known
    kind = ir.ArrayType(element, len(entries))
    table: Any = ir.GlobalVariable(builder.module, kind, name)
    table.linkage, table.global_constant, table.unnamed_addr = "internal", True, True
    table.initializer = ir.Constant(kind, [int(entry) for entry in entries])
    return table


def replace_where(vector: Vector, *, stored: bool = False):
    """replace_where(u8x64)(bits, a, b) -> a's lane where its bit of `bits` is set, else b's. bits: u8x8, a byte for each eight lanes, whose
    first is in its lowest bit; `stored`: they come from memory, where x86 makes them a mask at once."""
    octets = Vector("u8", vector.lanes // 8)

    @intrinsic
    def op(typing, bits, a, b):
        def code(context, builder, signature, args):
            bits, a, b = args
            if stored and target().lowering.startswith("avx"):
                is_set = builder.bitcast(bits, ir.VectorType(ir.IntType(1), vector.lanes))
            else:
                spread = builder.shuffle_vector(bits, bits, lane_constant([i // 8 for i in range(vector.lanes)]))
                own = ir.Constant(spread.type, [1 << i % 8 for i in range(vector.lanes)])
                is_set = builder.icmp_unsigned("!=", builder.and_(spread, own), ir.Constant(spread.type, [0] * vector.lanes))
            return builder.select(is_set, a, b)

        return vector(octets, vector, vector), code

    return op


@intrinsic
def seven_bits(typing, packed):
    """The four lowest 7-bit fields of each u32, in order: u32xN -> u8x4N."""
    result = Vector("u8", 4 * packed.lanes)

    def code(context, builder, signature, args):
        (packed,) = args
        n, vector = packed.type.count, ir.VectorType(I8, 64)
        if target().has_byte_permute and n == 8:
            eight = builder.bitcast(builder.zext(packed, ir.VectorType(I64, 8)), vector)
            shift = declare(builder, "llvm.x86.avx512.pmultishift.qb.512", vector, [vector] * 2)
            fields = builder.call(shift, [ir.Constant(vector, [7 * (i % 4) for i in range(64)]), eight])
            found = builder.bitcast(builder.trunc(builder.bitcast(fields, ir.VectorType(I64, 8)), ir.VectorType(I32, 8)), result.ir)
        else:
            each = builder.shuffle_vector(packed, packed, lane_constant([i // 4 for i in range(4 * n)]))
            shifts = ir.Constant(each.type, [7 * (i % 4) for i in range(4 * n)])
            found = builder.trunc(builder.lshr(each, shifts), result.ir)
        return builder.and_(found, ir.Constant(result.ir, [127] * 4 * n))

    return result(packed), code
