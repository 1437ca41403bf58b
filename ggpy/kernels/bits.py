"""Bits and nibbles spread over bytes, as several block formats store them."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from ggpy.kernels.options import inline
from ggpy.simd.memory import load_u8x16
from ggpy.simd.vectors import concat, constant, intrinsic, u8x16, u8x32

_low, _four, _join = constant(u8x16, 15), constant(u8x16, 4), concat(u8x16)


@inline
def nibbles_32(address):
    """Sixteen bytes to 32 values: all low nibbles, then all high ones."""
    q = load_u8x16(address)
    return _join(q & _low(), q >> _four())


@intrinsic
def spread_bits(typing, bits, value):
    """u8x32 with `value` (uint8) in lane i where bit i of `bits` (uint32) is set, else 0."""

    def code(context, builder, signature, args):
        mask = builder.bitcast(args[0], ir.VectorType(ir.IntType(1), 32))
        undefined = ir.Constant(u8x32.ir, ir.Undefined)
        lane = builder.insert_element(undefined, args[1], ir.Constant(ir.IntType(32), 0))
        everywhere = builder.shuffle_vector(lane, undefined, ir.Constant(ir.VectorType(ir.IntType(32), 32), [0] * 32))
        return builder.select(mask, everywhere, ir.Constant(u8x32.ir, [0] * 32))

    return u8x32(types.uint32, types.uint8), code
