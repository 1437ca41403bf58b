"""What formats share whose integers are named by an index into a grid, several by each, and have signs or a small shift beside it.

Integers are unsigned: moved up by a center, which the grid's levels hold already."""

from __future__ import annotations

import numpy as np

from ggpy.kernels.options import inline
from ggpy.simd.bits import bit_fields, with_parity
from ggpy.simd.lanes import where_less
from ggpy.simd.memory import load
from ggpy.simd.tables import grid, replace_where
from ggpy.simd.vectors import Vector, concat, constant, convert, i16x32, permute, u8x16, u8x32, u8x64, u16x32

u8x4, u8x8 = Vector("u8", 4), Vector("u8", 8)
load_u8x4, load_u8x8 = load(u8x4), load(u8x8)
widen, narrow, all_signs = convert(u8x32, u16x32), convert(u16x32, u8x32), with_parity(u8x32)
_signs_0, _signs_1, _signs_2, _signs_3 = (permute(u8x32, range(8 * c, 8 * c + 8)) for c in range(4))
_where, _where_stored = replace_where(u8x64), replace_where(u8x64, stored=True)
_both_8, _twice_16, _one, _widen_words = concat(u8x8), concat(u8x16), constant(u8x32, 1), convert(u8x32, i16x32)
_odd_nibbles = bit_fields(u8x32, [(0, 4, 1), (4, 4, 1)] * 2)

_no_shift, _plus, _minus = constant(u8x32, 127), constant(u8x32, 1), constant(u8x32, 255)
_shift_0, _shift_1, _shift_2, _shift_3 = (permute(u8x32, [8 * c + i // 8 for i in range(64)]) for c in range(4))

NIBBLE_LANES = [8 * (group % 2) + group // 2 for group in range(16)]


def packed_grid(values: np.ndarray, center: int):
    """`tables.grid` of entries given by their values, (n, 8) or (n, 4), each moved up by `center`."""
    levels = np.unique(values)
    bits = 16 // values.shape[1]
    fields = np.searchsorted(levels, values).astype(np.uint16) << np.arange(0, 16, bits, dtype=np.uint16)
    return grid(np.bitwise_or.reduce(fields, axis=1), [int(level) + center for level in levels], bits)


def signed_by(center: int):
    """with_signs(a, b, c, d, signs u8x32) -> four u8x64 with every integer whose bit is set on the other side of the center."""
    opposite = constant(u8x64, 2 * center)

    @inline
    def with_signs(a, b, c, d, signs):
        return (
            _where(_signs_0(signs), opposite() - a, a),
            _where(_signs_1(signs), opposite() - b, b),
            _where(_signs_2(signs), opposite() - c, c),
            _where(_signs_3(signs), opposite() - d, d),
        )

    return with_signs


def with_stored_signs(center: int):
    """The same with the address of the 256 signs."""
    opposite = constant(u8x64, 2 * center)

    @inline
    def with_signs(a, b, c, d, signs):
        return (
            _where_stored(load_u8x8(signs), opposite() - a, a),
            _where_stored(load_u8x8(signs + 8), opposite() - b, b),
            _where_stored(load_u8x8(signs + 16), opposite() - c, c),
            _where_stored(load_u8x8(signs + 24), opposite() - d, d),
        )

    return with_signs


@inline
def shifted(a, b, c, d, signs):
    """Four u8x64, each integer plus 1, or minus 1 if its entry's lane of `signs`, u16x32, has bit 7."""
    shift = where_less(_no_shift(), narrow(signs), _minus(), _plus())
    return a + _shift_0(shift), b + _shift_1(shift), c + _shift_2(shift), d + _shift_3(shift)


@inline
def odd_nibbles(v, w):
    """`words` of sixteen scales 2 n + 1, n being the nibbles of the eight bytes at v and at w: where NIBBLE_LANES says."""
    first, second = load_u8x8(v), load_u8x8(w)
    return _widen_words(_odd_nibbles(_twice_16(_both_8(first, first), _both_8(second, second))) | _one())
