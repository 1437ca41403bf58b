"""The int8 dot product: four neighbouring products summed into one int32 lane, lowered once per CPU.

dot_u8i8: unsigned by signed, as the hardware has it. The portable AVX2 form (pmaddubsw) saturates at 16 bits, so the unsigned side must
stay below 128 there: every block format but Q8_0 does. dot_i8i8 is for Q8_0: both sides signed, |b| <= 127, a may be -128.

| lowering | dot_u8i8 | dot_i8i8 |
|---|---|---|
| avx512-vnni, avx-vnni | vpdpbusd | vpdpbusd of a + 128, less 128 times the sum of b (vpdpbusd with a constant) |
| avx2 | pmaddubsw, pmaddwd | the same on |a| and b with a's sign |
| neon-dot | sdot (values below 128 are the same signed; usdot would take any byte, but no format asks for that) | sdot |
| portable | widening multiplies | widening multiplies |
"""

from __future__ import annotations

from llvmlite import ir

from .target import target
from .vectors import declare, intrinsic, lane_constant

I8, I16, I32 = (ir.IntType(n) for n in (8, 16, 32))


def pieces_of(builder, value, lanes: int):
    """Cut a vector into parts of `lanes` lanes."""
    if value.type.count == lanes:
        return [value]
    return [builder.shuffle_vector(value, value, lane_constant(range(i, i + lanes))) for i in range(0, value.type.count, lanes)]


def joined(builder, parts):
    while len(parts) > 1:
        lanes = parts[0].type.count
        parts = [builder.shuffle_vector(a, b, lane_constant(range(2 * lanes))) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _by_width(builder, operation, acc, a, b, width: int):
    """Apply `operation(acc, a, b)` on pieces of `width` bytes and join the int32 results."""
    pieces = zip(pieces_of(builder, acc, width // 4), pieces_of(builder, a, width), pieces_of(builder, b, width), strict=True)
    return joined(builder, [operation(*piece) for piece in pieces])


def _vpdpbusd(builder, acc, a, b):
    bits = 8 * a.type.count
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"
    function = declare(builder, name, acc.type, [acc.type, a.type, b.type])
    return builder.call(function, [acc, a, b])


def pairs_u8i8(builder, a, b):
    """int16 sums of two neighbouring products of a (uint8 below 128) and b (int8): x86's pmaddubsw, which cannot saturate then."""
    name = {32: "llvm.x86.avx2.pmadd.ub.sw", 64: "llvm.x86.avx512.pmaddubs.w.512"}[a.type.count]
    return builder.call(declare(builder, name, ir.VectorType(I16, a.type.count // 2), [a.type, b.type]), [a, b])


def maddwd(builder, a, b):
    """int32 sums of two neighbouring products of int16 lanes: x86's pmaddwd."""
    name = {8: "llvm.x86.sse2.pmadd.wd", 16: "llvm.x86.avx2.pmadd.wd", 32: "llvm.x86.avx512.pmaddw.d.512"}[a.type.count]
    return builder.call(declare(builder, name, ir.VectorType(I32, a.type.count // 2), [a.type, b.type]), [a, b])


def _maddubs(builder, acc, a, b):
    pairs = pairs_u8i8(builder, a, b)
    return builder.add(acc, maddwd(builder, pairs, ir.Constant(pairs.type, [1] * pairs.type.count)))


def sdot(builder, acc, a, b):
    name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    return builder.call(declare(builder, name, acc.type, [acc.type, a.type, b.type]), [acc, a, b])


def _portable(builder, acc, a, b, *, signed: bool):
    n = a.type.count
    wide = ir.VectorType(I16, n)
    widened = builder.sext(a, wide) if signed else builder.zext(a, wide)
    product = builder.mul(builder.sext(widened, ir.VectorType(I32, n)), builder.sext(b, ir.VectorType(I32, n)))
    for step in range(4):
        acc = builder.add(acc, builder.shuffle_vector(product, product, lane_constant(range(step, n, 4))))
    return acc


def signs_moved(builder, a, b):
    """|a| and b with a's sign, of int8 vectors: the same products, unsigned by signed."""
    zero = ir.Constant(a.type, [0] * a.type.count)
    negative = builder.icmp_signed("<", a, zero)
    return builder.select(negative, builder.sub(zero, a), a), builder.select(negative, builder.sub(zero, b), b)


def emit_dot_u8i8(builder, acc, a, b):
    """acc (int32 lanes) plus the 4-way dot of a (uint8) and b (int8), four times as many lanes."""
    lowering = target().lowering
    if lowering == "avx512-vnni":
        return _by_width(builder, lambda *v: _vpdpbusd(builder, *v), acc, a, b, min(64, a.type.count))
    if lowering == "avx-vnni":
        return _by_width(builder, lambda *v: _vpdpbusd(builder, *v), acc, a, b, 32)
    if lowering == "avx2":
        return _by_width(builder, lambda *v: _maddubs(builder, *v), acc, a, b, 32)
    if lowering == "neon-dot":
        return _by_width(builder, lambda *v: sdot(builder, *v), acc, a, b, 16)
    return _portable(builder, acc, a, b, signed=False)


def emit_dot_i8i8(builder, acc, a, b):
    """acc plus the 4-way dot of two int8 vectors; |b| <= 127."""
    lowering = target().lowering
    if lowering in ("avx512-vnni", "avx-vnni"):
        sign = ir.Constant(a.type, [0x80] * a.type.count)
        over = emit_dot_u8i8(builder, acc, builder.xor(a, sign), b)
        return builder.sub(over, emit_dot_u8i8(builder, ir.Constant(acc.type, [0] * acc.type.count), sign, b))
    if lowering == "avx2":
        return emit_dot_u8i8(builder, acc, *signs_moved(builder, a, b))
    if lowering == "neon-dot":
        return emit_dot_u8i8(builder, acc, a, b)
    return _portable(builder, acc, a, b, signed=True)


@intrinsic
def dot_u8i8(typing, acc, a, b):
    """acc + 4-way dot of a (uint8, below 128) and b (int8): (i32xN, u8x4N, i8x4N) -> i32xN, N = 8 or 16."""

    def code(context, builder, signature, args):
        return emit_dot_u8i8(builder, *args)

    return acc(acc, a, b), code


@intrinsic
def dot_i8i8(typing, acc, a, b):
    """acc + 4-way dot of a and b (int8, |b| <= 127): (i32xN, i8x4N, i8x4N) -> i32xN, N = 8 or 16."""

    def code(context, builder, signature, args):
        return emit_dot_i8i8(builder, *args)

    return acc(acc, a, b), code
