"""exp, 2^x and tanh on sixteen lanes: kernels call no C library, so that their object code has no undefined symbols."""

from __future__ import annotations

from ggpy.kernels.options import inline
from ggpy.simd.arithmetic import absolute, fma, maximum, minimum, round_even
from ggpy.simd.lanes import copy_sign, where_less
from ggpy.simd.vectors import bitcast, constant, convert, f32x16, i32x16

_round_to_i32 = convert(f32x16, i32x16)
_as_float = bitcast(i32x16, f32x16)
_log2_e = constant(f32x16, 1.4426950408889634)
_ln2_high = constant(f32x16, -0.693359375)
_ln2_low = constant(f32x16, 2.12194440e-4)
_lowest, _highest = constant(f32x16, -87.0), constant(f32x16, 88.0)
_bias, _mantissa = constant(i32x16, 127), constant(i32x16, 23)
_c0, _c1, _c2 = (constant(f32x16, c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3))
_c3, _c4, _c5 = (constant(f32x16, c) for c in (4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
_one, _nothing = constant(f32x16, 1.0), constant(f32x16, 0.0)
_vanishing, _rounding, _as_integer = constant(f32x16, -127.0), constant(f32x16, 12582912.0), bitcast(f32x16, i32x16)
_d1, _d2, _d3 = (constant(f32x16, d) for d in (6.9314700365e-1, 2.4022242427e-1, 5.5507335812e-2))
_d4, _d5 = (constant(f32x16, d) for d in (9.6715129912e-3, 1.3264727313e-3))
_two, _small = constant(f32x16, 2.0), constant(f32x16, 0.625)
_t0, _t1, _t2 = (constant(f32x16, t) for t in (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2))
_t3, _t4 = (constant(f32x16, t) for t in (1.33314422036e-1, -3.33332819422e-1))


@inline
def exp_f32x16(x):
    """e to the power of each lane, relative error below 2e-7 on [-87, 88]; lanes outside are clamped to that range,
    lanes that are not finite become NaN: a fault in the weights must reach the logits.

    exp(x) = 2^n * exp(r), n = round(x / ln 2), r = x - n ln 2 in two parts; exp(r) by the degree-5 minimax polynomial of
    Cephes' expf (S. Moshier, 1987).
    """
    taint = x * _nothing()
    x = minimum(maximum(x, _lowest()), _highest())
    n = round_even(x * _log2_e())
    r = fma(n, _ln2_low(), fma(n, _ln2_high(), x))
    p = fma(_c0(), r, _c1())
    p = fma(p, r, _c2())
    p = fma(p, r, _c3())
    p = fma(p, r, _c4())
    p = fma(p, r, _c5())
    p = fma(p, r * r, r + _one())
    return fma(p, _as_float((_round_to_i32(n) + _bias()) << _mantissa()), taint)


@inline
def exp2_f32x16(x):
    """2 to the power of each lane, lanes at most 0: relative error below 2e-7, 0 below -126.5. NaN stays NaN.

    2^x = 2^n * 2^r, n = round(x), read from the low bits of x + 1.5 * 2^23; 2^r by a degree-5 polynomial, 1 at 0 and otherwise minimax
    in relative error on [-1/2, 1/2].
    """
    x = where_less(x, _vanishing(), _vanishing(), x)
    shifted = x + _rounding()
    r = x - (shifted - _rounding())
    p = fma(_d5(), r, _d4())
    p = fma(p, r, _d3())
    p = fma(p, r, _d2())
    p = fma(p, r, _d1())
    p = fma(p, r, _one())
    return p * _as_float((_as_integer(shifted) + _bias()) << _mantissa())


@inline
def tanh_f32x16(x):
    """tanh of each lane, relative error below 3e-7; lanes that are not finite become NaN, as of `exp_f32x16`.

    1 - 2 / (exp(2 |x|) + 1) with the sign of x; below 0.625 x + x^3 p(x^2), p by the degree-4 minimax polynomial of Cephes' tanhf
    (S. Moshier, 1987).
    """
    magnitude = absolute(x)
    large = copy_sign(_one() - _two() / (exp_f32x16(magnitude + magnitude) + _one()), x)
    squared = x * x
    p = fma(_t0(), squared, _t1())
    p = fma(p, squared, _t2())
    p = fma(p, squared, _t3())
    p = fma(p, squared, _t4())
    return where_less(magnitude, _small(), fma(p * squared, x, x), large)
