"""Outer products summed in registers: several vectors of float16 by several float32 numbers, what attention consists of.

Scores are sums over head dimensions of sixteen keys' values times one query's; results are sums over positions of sixteen values of one
position times one query's weight. Both are the same product with other strides.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .arithmetic import emit_fma
from .memory import I64, pointer
from .target import target
from .vectors import emit_splat, f16x16, f32x16, intrinsic

_PARAMETERS = 9
_NOTHING = ir.Constant(f32x16.ir, [0.0] * 16)
_SIDE_BY_SIDE = 32  # bytes from one f16x16 to the next


def _rows_at_once() -> dict[int, int]:
    """Rows that are summed together: with how many vectors side by side, as many as the registers hold sums for."""
    if target().lowering == "avx512-vnni":
        return {8: 1, 4: 4, 3: 4, 2: 4, 1: 4}
    return {4: 1, 3: 1, 2: 2, 1: 4}


@intrinsic
def outer(typing, rows, vectors, out, out_row, x, x_step, x_vector, w, w_row, steps, keep):
    """out[r, v] = (out[r, v] if keep is not 0) + sum over i < steps of x[i, v] * w[r, i].

    out: `rows` rows of `vectors` f32x16, rows `out_row` bytes apart. x: f16x16, the vectors of a step `x_vector` bytes apart, steps
    `x_step` bytes apart. w: float32, rows `w_row` bytes apart. Vectors that do not lie side by side are taken one after the other: memory
    is read fastest from one place on. The code stands once in a kernel, however often it is called.
    """

    def code(context, builder, signature, args):
        builder.call(_dispatch(builder.module), args)
        return context.get_dummy_value()

    return types.void(*[types.intp] * (_PARAMETERS + 2)), code


def _define(module: ir.Module, name: str, parameters: int) -> ir.Function:
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * parameters), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function


def _dispatch(module: ir.Module) -> ir.Function:
    """Cuts any number of rows and vectors into those that are summed together."""
    name, table = "ggpy_outer", _rows_at_once()
    if name in module.globals:
        return module.globals[name]
    function = _define(module, name, _PARAMETERS + 2)
    rows, vectors, out, out_row, x, x_step, x_vector, w, w_row, steps, keep = function.args
    entry, head, end = (function.append_basic_block(block) for block in ("entry", "head", "end"))
    builder = ir.IRBuilder(entry)
    is_dense = builder.icmp_signed("==", x_vector, ir.Constant(I64, _SIDE_BY_SIDE))
    builder.branch(head)
    builder.position_at_end(head)
    row = builder.phi(I64)
    row.add_incoming(ir.Constant(I64, 0), entry)
    left = builder.sub(rows, row)
    for count, several in table.items():
        fits, vector_head, wide, narrow, one, done, following = (function.append_basic_block(f"{block}{count}") for block in (
            "fits", "vectors", "wide", "narrow", "one", "done", "next"))  # fmt: skip
        builder.cbranch(builder.icmp_signed(">=", left, ir.Constant(I64, count)), fits, following)
        builder.position_at_end(fits)
        row_out, row_w = builder.add(out, builder.mul(row, out_row)), builder.add(w, builder.mul(row, w_row))
        builder.branch(vector_head)
        builder.position_at_end(vector_head)
        vector = builder.phi(I64)
        vector.add_incoming(ir.Constant(I64, 0), fits)
        remaining = builder.sub(vectors, vector)
        to, source = builder.add(row_out, builder.mul(vector, ir.Constant(I64, 64))), builder.add(x, builder.mul(vector, x_vector))
        arguments = (to, out_row, source, x_step, x_vector, row_w, w_row, steps, keep)
        enough = builder.icmp_signed(">=", remaining, ir.Constant(I64, several))
        builder.cbranch(builder.and_(enough, is_dense), wide, narrow)
        builder.position_at_end(wide)
        builder.call(_sums(module, several, count), arguments)
        vector.add_incoming(builder.add(vector, ir.Constant(I64, several)), wide)
        builder.branch(vector_head)
        builder.position_at_end(narrow)
        builder.cbranch(builder.icmp_signed(">", remaining, ir.Constant(I64, 0)), one, done)
        builder.position_at_end(one)
        builder.call(_sums(module, 1, count), arguments)
        vector.add_incoming(builder.add(vector, ir.Constant(I64, 1)), one)
        builder.branch(vector_head)
        builder.position_at_end(done)
        row.add_incoming(builder.add(row, ir.Constant(I64, count)), done)
        builder.branch(head)
        builder.position_at_end(following)
    builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return function


def _sums(module: ir.Module, vectors: int, rows: int) -> ir.Function:
    """A given number of rows and vectors, sums in registers. With few of them, each would wait for the one before it: even and odd steps
    are then summed apart."""
    name = f"ggpy_outer_{rows}x{vectors}"
    if name in module.globals:
        return module.globals[name]
    function, at_once = _define(module, name, _PARAMETERS), 2 if rows * vectors <= 4 else 1
    out, out_row, x, x_step, x_vector, w, w_row, steps, keep = function.args
    entry, kept, start, loop, check, rest, end = (
        function.append_basic_block(block) for block in ("entry", "kept", "start", "loop", "check", "rest", "end")
    )

    def number(value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def step(builder, at, i, sums):
        """The sums after one more step, whose vectors are at `at` and whose numbers are the rows' i-th."""
        wide = [builder.fpext(builder.load(pointer(builder, builder.add(at, o), f16x16.ir), align=1), f32x16.ir) for o in offsets]
        results = []
        for r in range(rows):
            place = pointer(builder, builder.add(w_rows[r], builder.mul(i, number(4))), ir.FloatType())
            factor = emit_splat(builder, builder.load(place, align=1), f32x16.ir)
            results += [emit_fma(builder, wide[v], factor, sums[r * vectors + v]) for v in range(vectors)]
        return results

    builder = ir.IRBuilder(entry)
    offsets = [builder.mul(x_vector, number(v)) for v in range(vectors)]
    w_rows = [builder.add(w, builder.mul(w_row, number(r))) for r in range(rows)]
    rows_out = [builder.add(out, builder.mul(out_row, number(r))) for r in range(rows)]
    places = [pointer(builder, builder.add(row, number(64 * v)), f32x16.ir) for row in rows_out for v in range(vectors)]
    whole = builder.and_(steps, number(-at_once))
    builder.cbranch(builder.icmp_signed("!=", keep, number(0)), kept, start)

    builder.position_at_end(kept)
    loaded = [builder.load(place, align=1) for place in places]
    builder.branch(start)

    builder.position_at_end(start)
    before = [builder.phi(f32x16.ir) for _ in places]
    for phi, value in zip(before, loaded, strict=True):
        phi.add_incoming(_NOTHING, entry)
        phi.add_incoming(value, kept)
    builder.cbranch(builder.icmp_signed(">", whole, number(0)), loop, check)

    builder.position_at_end(loop)
    i, at = builder.phi(I64), builder.phi(I64)
    sums = [[builder.phi(f32x16.ir) for _ in places] for _ in range(at_once)]
    here, results = at, []
    for u in range(at_once):
        results.append(step(builder, here, builder.add(i, number(u)), sums[u]))
        here = builder.add(here, x_step)
    following = builder.add(i, number(at_once))
    for phi, first, then in ((i, number(0), following), (at, x, here)):
        phi.add_incoming(first, start)
        phi.add_incoming(then, loop)
    for u in range(at_once):
        for phi, first, then in zip(sums[u], before, results[u], strict=True):
            phi.add_incoming(_NOTHING if u else first, start)
            phi.add_incoming(then, loop)
    totals = results[0]
    for other in results[1:]:
        totals = [builder.fadd(a, b) for a, b in zip(totals, other, strict=True)]
    builder.cbranch(builder.icmp_signed("<", following, whole), loop, check)

    builder.position_at_end(check)
    after = [builder.phi(f32x16.ir) for _ in places]
    for phi, first, then in zip(after, before, totals, strict=True):
        phi.add_incoming(first, start)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", whole, steps), rest, end)

    builder.position_at_end(rest)
    last = step(builder, builder.add(x, builder.mul(whole, x_step)), whole, after)
    builder.branch(end)

    builder.position_at_end(end)
    final = [builder.phi(f32x16.ir) for _ in places]
    for phi, first, then in zip(final, after, last, strict=True):
        phi.add_incoming(first, check)
        phi.add_incoming(then, rest)
    for place, value in zip(places, final, strict=True):
        builder.store(value, place, align=1)
    builder.ret_void()
    return function
