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

from collections.abc import Sequence

from llvmlite import ir

from .target import target
from .vectors import Vector, declare, intrinsic, lane_constant

I8, I16, I32 = (ir.IntType(n) for n in (8, 16, 32))


def _pieces(builder, value, lanes: int):
    """Cut a vector into parts of `lanes` lanes."""
    if value.type.count == lanes:
        return [value]
    return [builder.shuffle_vector(value, value, lane_constant(range(i, i + lanes))) for i in range(0, value.type.count, lanes)]


def _joined(builder, parts):
    while len(parts) > 1:
        lanes = parts[0].type.count
        parts = [builder.shuffle_vector(a, b, lane_constant(range(2 * lanes))) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _by_width(builder, operation, acc, a, b, width: int):
    """Apply `operation(acc, a, b)` on pieces of `width` bytes and join the int32 results."""
    pieces = zip(_pieces(builder, acc, width // 4), _pieces(builder, a, width), _pieces(builder, b, width), strict=True)
    return _joined(builder, [operation(*piece) for piece in pieces])


def _vpdpbusd(builder, acc, a, b):
    bits = 8 * a.type.count
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"
    function = declare(builder, name, acc.type, [acc.type, a.type, b.type])
    return builder.call(function, [acc, a, b])


def _pairs(builder, a, b):
    """int16 sums of two neighbouring products of a (uint8 below 128) and b (int8): x86's pmaddubsw, which cannot saturate then."""
    name = {32: "llvm.x86.avx2.pmadd.ub.sw", 64: "llvm.x86.avx512.pmaddubs.w.512"}[a.type.count]
    return builder.call(declare(builder, name, ir.VectorType(I16, a.type.count // 2), [a.type, b.type]), [a, b])


def _maddwd(builder, a, b):
    """int32 sums of two neighbouring products of int16 lanes: x86's pmaddwd."""
    name = {8: "llvm.x86.sse2.pmadd.wd", 16: "llvm.x86.avx2.pmadd.wd", 32: "llvm.x86.avx512.pmaddw.d.512"}[a.type.count]
    return builder.call(declare(builder, name, ir.VectorType(I32, a.type.count // 2), [a.type, b.type]), [a, b])


def _maddubs(builder, acc, a, b):
    pairs = _pairs(builder, a, b)
    return builder.add(acc, _maddwd(builder, pairs, ir.Constant(pairs.type, [1] * pairs.type.count)))


def _sdot(builder, acc, a, b):
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
        return _by_width(builder, lambda *v: _sdot(builder, *v), acc, a, b, 16)
    return _portable(builder, acc, a, b, signed=False)


def emit_dot_i8i8(builder, acc, a, b):
    """acc plus the 4-way dot of two int8 vectors; |b| <= 127."""
    lowering = target().lowering
    if lowering in ("avx512-vnni", "avx-vnni"):
        sign = ir.Constant(a.type, [0x80] * a.type.count)
        over = emit_dot_u8i8(builder, acc, builder.xor(a, sign), b)
        return builder.sub(over, emit_dot_u8i8(builder, ir.Constant(acc.type, [0] * acc.type.count), sign, b))
    if lowering == "avx2":
        zero = ir.Constant(a.type, [0] * a.type.count)
        negative = builder.icmp_signed("<", a, zero)
        magnitude = builder.select(negative, builder.sub(zero, a), a)
        return emit_dot_u8i8(builder, acc, magnitude, builder.select(negative, builder.sub(zero, b), b))
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


def _kept(builder, value, register: str):
    """The same value in a register of that kind; LLVM does not see what it is."""
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", f"={register},0", [value], side_effect=False)


def _spread(builder, words, lanes):
    """Lanes of int16 `words`, picked by constant indices: bytes moved in one instruction where the CPU has it.

    The indices go through an empty instruction, so that LLVM does not see that they are constant: it would choose two instructions, and
    in the loops that use this any one counts.
    """
    if len(lanes) == 32 and words.type.count <= 32 and target().has_byte_permute:
        index = ir.Constant(ir.VectorType(I8, 64), [2 * lane + part for lane in lanes for part in (0, 1)])
        kept = _kept(builder, index, "v")
        function = declare(builder, "llvm.x86.avx512.permvar.qi.512", index.type, [index.type] * 2)
        whole = builder.bitcast(_cycled(builder, words, 32), index.type)
        return builder.bitcast(builder.call(function, [whole, kept]), ir.VectorType(I16, 32))
    return builder.shuffle_vector(words, words, lane_constant(lanes))


def _cycled(builder, value, lanes: int):
    return builder.shuffle_vector(value, value, lane_constant([i % value.type.count for i in range(lanes)]))


def weighted_dot(words: Vector, lanes: Sequence[int]):
    """weighted_dot(i16x32, lanes)(acc, a, b, c, d, weights): i32x16 acc plus the products of a and b, and of c and d, weighted.

    a, c u8x64 below 128, b, d i8x64: 128 values in order. Each eight of them have the weight weights[lanes[i // 8]]. The sum of four
    neighbouring products must fit int16, as it does for values below 64, and the whole sum int32. Which int32 lane a product is added to
    depends on the CPU.
    """
    acc_type = Vector("i32", 16)

    def by_dwords(builder, acc, values, weights):
        """Sums of four products as int16, then pairs of them with their weight. Packing takes four of a and four of c in turn."""
        first, second = (emit_dot_u8i8(builder, ir.Constant(acc.type, [0] * 16), a, b) for a, b in values)
        order = [lanes[8 * half + 2 * part + (i % 4) // 2] for part in range(4) for half in range(2) for i in range(4)]
        picked = _spread(builder, weights, order)
        name, i32x16, i16x32 = "llvm.x86.avx512.packssdw.512", acc.type, ir.VectorType(I16, 32)
        packed = builder.call(declare(builder, name, i16x32, [i32x16, i32x16]), [first, second])
        return builder.call(declare(builder, "llvm.x86.avx512.vpdpwssd.512", i32x16, [i32x16, i16x32, i16x32]), [acc, packed, picked])

    def by_words(builder, acc, values, weights):
        """Sums of two products as int16, then pairs of them with their weight."""
        for half, (a, b) in enumerate(values):
            picked = _spread(builder, weights, [lanes[8 * half + i // 4] for i in range(32)])
            pieces = zip(*(_pieces(builder, v, n) for v, n in ((acc, 8), (a, 32), (b, 32), (picked, 16))), strict=True)
            acc = _joined(builder, [builder.add(t, _maddwd(builder, _pairs(builder, x, y), w)) for t, x, y, w in pieces])
        return acc

    def by_products(builder, acc, values, weights):
        for half, (a, b) in enumerate(values):
            sums = emit_dot_u8i8(builder, ir.Constant(acc.type, [0] * 16), a, b)
            picked = builder.sext(_spread(builder, weights, [lanes[8 * half + i // 2] for i in range(16)]), acc.type)
            acc = builder.add(acc, builder.mul(sums, picked))
        return acc

    def by_quads(builder, acc, values, weights):
        """Sixteen values at a time, which have one weight or two: NEON multiplies by one lane of a register. Neighbours that have the same
        weights are summed first.

        The widened weights go through empty instructions: LLVM would pick the lanes before it widens them, each by itself.
        """
        wide = [_kept(builder, four, "w") for four in _pieces(builder, builder.sext(weights, ir.VectorType(I32, words.lanes)), 4)]
        parts = [part for a, b in values for part in zip(_pieces(builder, a, 16), _pieces(builder, b, 16), strict=True)]
        pairs, totals, sums = list(zip(lanes[::2], lanes[1::2], strict=True)), _pieces(builder, acc, 4), None
        for i, (a, b) in enumerate(parts):
            sums = _sdot(builder, sums or ir.Constant(ir.VectorType(I32, 4), [0] * 4), a, b)
            if pairs[i : i + 1] != pairs[i + 1 : i + 2]:
                (one, at), (two, other) = (divmod(lane, 4) for lane in pairs[i])
                other += 4 if one != two else 0
                weight = builder.shuffle_vector(wide[one], wide[two], lane_constant([at, at, other, other]))
                totals[i // 2 % 4] = builder.add(totals[i // 2 % 4], builder.mul(sums, weight))
                sums = None
        return _joined(builder, totals)

    form = {"avx512-vnni": by_dwords, "avx2": by_words, "avx-vnni": by_words, "neon-dot": by_quads}.get(target().lowering, by_products)

    @intrinsic
    def op(typing, acc, a, b, c, d, weights):
        def code(context, builder, signature, args):
            acc, a, b, c, d, weights = args
            return form(builder, acc, [(a, b), (c, d)], weights)

        return acc_type(acc_type, a, b, c, d, words), code

    return op


@intrinsic
def dot_i16(typing, a, b):
    """Sums of two neighbouring products of int16 lanes: (i16x2N, i16x2N) -> i32xN, N = 4, 8 or 16."""
    result = Vector("i32", a.lanes // 2)

    def code(context, builder, signature, args):
        a, b = args
        if target().lowering in ("avx512-vnni", "avx-vnni", "avx2"):
            width = 32 if target().lowering == "avx512-vnni" else 16
            pieces = [_pieces(builder, v, min(width, v.type.count)) for v in (a, b)]
            return _joined(builder, [_maddwd(builder, *piece) for piece in zip(*pieces, strict=True)])
        wide = ir.VectorType(I32, a.type.count)
        product = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
        halves = [builder.shuffle_vector(product, product, lane_constant(range(step, a.type.count, 2))) for step in range(2)]
        return builder.add(*halves)

    return result(a, b), code
