"""AMX: eight tile registers of sixteen rows by 64 bytes, their bfloat16 product, and the bfloat16 vectors they are fed with.

Only code for a target with `amx` may use the tile instructions. Tiles are named by constant numbers: each instruction is an intrinsic of
its own. Semantics: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS and the TILE instructions.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .memory import I64
from .target import target
from .vectors import Vector, declare, f32x16, intrinsic, lane_constant

TILE_ROWS = 16
TILE_ROW_BYTES = 64
TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES
CONFIG_BYTES = 64

u16x32 = Vector("u16", 32)

_I8, _VOID = ir.IntType(8), ir.VoidType()
_POINTER = _I8.as_pointer()


class _BFloat16(ir.Type):
    """LLVM's `bfloat`, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


def _call(builder, name: str, arguments) -> None:
    function = declare(builder, f"llvm.x86.{name}", _VOID, [argument.type for argument in arguments])
    builder.call(function, arguments)


def _with_tiles(name: str, *tiles: int):
    @intrinsic
    def op(typing):
        def code(context, builder, signature, args):
            _call(builder, name, [ir.Constant(_I8, tile) for tile in tiles])
            return context.get_dummy_value()

        return types.void(), code

    return op


def _with_memory(name: str, tile: int):
    @intrinsic
    def op(typing, address, stride):
        def code(context, builder, signature, args):
            _call(builder, name, [ir.Constant(_I8, tile), builder.inttoptr(args[0], _POINTER), args[1]])
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), code

    return op


def tile_zero(tile: int):
    """tile_zero(t)(): clear tile t."""
    return _with_tiles("tilezero", tile)


def tile_load(tile: int):
    """tile_load(t)(address, stride): the rows of tile t from memory, `stride` bytes apart."""
    return _with_memory("tileloadd64", tile)


def tile_store(tile: int):
    """tile_store(t)(address, stride): the rows of tile t to memory, `stride` bytes apart."""
    return _with_memory("tilestored64", tile)


def tile_multiply(to: int, a: int, b: int):
    """tile_multiply(to, a, b)(): float32 [m][n] += sum over k of bfloat16 a[m][k] * b[k / 2][n][k % 2], m, n < 16, k < 32.

    Even and odd k are summed apart, in order, then added to each other and to what was there; denormals count as zero.
    """
    return _with_tiles("tdpbf16ps", to, a, b)


tile_release = _with_tiles("tilerelease")


@intrinsic
def tile_configure(typing, address):
    """Make all eight tiles sixteen rows of 64 bytes. `address`: 64 bytes that are overwritten; `tile_release` ends the use of tiles."""

    def code(context, builder, signature, args):
        words = [1, 0, *[0x0040_0040_0040_0040] * 2, 0, 0, 0x1010_1010_1010_1010, 0]  # palette 1; bytes per row from 16; rows from 48
        vector = ir.VectorType(I64, 8)
        config = builder.inttoptr(args[0], vector.as_pointer())
        builder.store(ir.Constant(vector, words), config, align=1)
        _call(builder, "ldtilecfg", [builder.inttoptr(args[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.intp), code


def _emit_bf16(builder, a, b):
    """Two float32 vectors as bfloat16 bits, a's lanes first; one instruction where the CPU has it, which takes denormals for zero."""
    bits = ir.VectorType(ir.IntType(16), 32)
    if target().amx:
        both = ir.VectorType(_BFloat16(), 32)
        function = declare(builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", both, [a.type, b.type])
        return builder.bitcast(builder.call(function, [b, a]), bits)
    halves = [builder.fptrunc(x, ir.VectorType(_BFloat16(), 16)) for x in (a, b)]
    return builder.bitcast(builder.shuffle_vector(*halves, lane_constant(range(32))), bits)


def _join(order):
    """Round two float32 vectors to bfloat16, to nearest even, and put their lanes into `order`."""

    @intrinsic
    def op(typing, a, b):
        def code(context, builder, signature, args):
            bits = _emit_bf16(builder, *args)
            return builder.shuffle_vector(bits, bits, lane_constant(order))

        return u16x32(f32x16, f32x16), code

    return op


bf16_join = _join(range(32))  # a, then b
bf16_pairs = _join([lane // 2 + lane % 2 * 16 for lane in range(32)])  # a and b lane by lane: what b of a product holds in a row
