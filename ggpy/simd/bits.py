"""Bit fields packed into bytes, unpacked lane by lane."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import types

from .target import target
from .vectors import Vector, declare, emit_splat, intrinsic, lane_constant

I8, I32 = ir.IntType(8), ir.IntType(32)

Field = tuple[int, int, int]
"""(shift, width, to): bits shift … shift + width - 1 of a byte, moved to bit `to` and up; the others become 0."""


def _affine_matrix(field: Field) -> list[int]:
    """The bit matrix by which `gf2p8affineqb` takes a field out of a byte: row 7 - i, its lowest byte being row 0, gives bit i."""
    shift, width, to = field
    rows = [0] * 8
    for bit in range(width):
        rows[7 - (to + bit)] = 1 << (shift + bit)
    return rows


def _shifted(builder, value, fields: Sequence[Field]):
    """The same with shifts and masks, which LLVM splits into the registers' width: uniform there for the formats in use."""

    def lanes(numbers):
        return ir.Constant(value.type, [n for n in numbers for _ in range(8)])

    down = builder.lshr(value, lanes([shift for shift, _, _ in fields]))
    masked = builder.and_(down, lanes([(1 << width) - 1 for _, width, _ in fields]))
    return builder.shl(masked, lanes([to for _, _, to in fields]))


def bit_fields(vector: Vector, fields: Sequence[Field]):
    """bit_fields(u8x64, fields)(a) -> each lane's field of its byte; one field for every eight lanes, or one for all."""
    each = list(fields) * (vector.lanes // 8 // len(fields)) if len(fields) == 1 else list(fields)
    assert len(each) * 8 == vector.lanes and vector.element == "u8"

    @intrinsic
    def op(typing, a):
        def code(context, builder, signature, args):
            if not target().has_affine_u8 or vector.lanes not in (16, 32, 64):
                return _shifted(builder, args[0], each)
            matrices = ir.Constant(vector.ir, [byte for field in each for byte in _affine_matrix(field)])
            function = declare(builder, f"llvm.x86.vgf2p8affineqb.{8 * vector.lanes}", vector.ir, [vector.ir, vector.ir, I8])
            return builder.call(function, [args[0], matrices, ir.Constant(I8, 0)])

        return vector(vector), code

    return op


def _spread(lanes: int):
    result = Vector("u8", lanes)

    @intrinsic
    def op(typing, bits, value):
        def code(context, builder, signature, args):
            value, nothing = emit_splat(builder, args[1], result.ir), ir.Constant(result.ir, [0] * lanes)
            if target().lowering.startswith("avx"):
                mask = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), lanes))
            else:  # each byte to eight lanes, of which each looks at its bit
                octets = builder.bitcast(args[0], ir.VectorType(I8, lanes // 8))
                octets = builder.shuffle_vector(octets, octets, lane_constant([i // 8 for i in range(lanes)]))
                own = ir.Constant(result.ir, [1 << i % 8 for i in range(lanes)])
                mask = builder.icmp_unsigned("!=", builder.and_(octets, own), nothing)
            return builder.select(mask, value, nothing)

        return result(types.uint32 if lanes == 32 else types.uint64, types.uint8), code

    return op


spread_bits_32 = _spread(32)
"""spread_bits_32(bits, value) -> u8x32 with `value` (uint8) in lane i where bit i of `bits` (uint32) is set, else 0."""
spread_bits_64 = _spread(64)
"""spread_bits_64(bits, value) -> u8x64, of a uint64."""


def with_parity(vector: Vector):
    """with_parity(u8x32)(a) -> lanes below 128 with bit 7 set where an odd number of the others is."""

    @intrinsic
    def op(typing, a):
        def code(context, builder, signature, args):
            (a,) = args
            if target().has_affine_u8 and vector.lanes in (16, 32, 64):
                matrix = [0x7F] + [1 << 6 - i for i in range(7)]  # as in `_affine_matrix`: row 0 is for bit 7
                matrices = ir.Constant(vector.ir, matrix * (vector.lanes // 8))
                function = declare(builder, f"llvm.x86.vgf2p8affineqb.{8 * vector.lanes}", vector.ir, [vector.ir, vector.ir, I8])
                return builder.call(function, [a, matrices, ir.Constant(I8, 0)])
            folded = a
            for distance in (4, 2, 1):
                folded = builder.xor(folded, builder.lshr(folded, ir.Constant(vector.ir, [distance] * vector.lanes)))
            return builder.or_(a, builder.shl(folded, ir.Constant(vector.ir, [7] * vector.lanes)))

        return vector(vector), code

    return op
