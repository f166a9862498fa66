"""Sine, cosine and arc tangent as TIR, in the manner of `pcc.codegen.kernels.math`: over all of fp32, without calls."""

from typing import TYPE_CHECKING

from pcc.codegen.kernels.math import (
    absolute,
    as_bits,
    as_float,
    cast,
    constant,
    copy_sign,
    equal,
    fused,
    integer,
    intrinsic,
    polynomial,
    select,
)
from pcc.dtype import FLOAT32, INT32, INT64

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

PI_2 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
"""pi / 2 in three numbers of fp32."""
TWO_PI_BITS = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
"""2 / pi, 32 bits a word; the first word lies before the binary point."""
NEAR = 65536.0
"""Below, turns times each part of pi / 2 can be subtracted without loss."""

SINE = (2.71823728e-06, -0.000198393274, 0.00833332911, -0.166666672)
"""``(sin(r) - r) / r^3`` in r^2 on |r| <= pi / 4."""
COSINE = (2.44324128e-05, -0.00138873095, 0.0416666456)
"""``(cos(r) - 1 + r^2 / 2) / r^4`` in r^2 on |r| <= pi / 4."""
ATAN = (
    -0.00179361971,
    0.0109145977,
    -0.0311778318,
    0.0579575822,
    -0.0840344951,
    0.109521858,
    -0.142642424,
    0.199985489,
    -0.333332986,
)
"""``(atan(x) - x) / x^3`` in x^2 on |x| <= 1."""


def sin(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The sine; NaN of infinities."""
    x = k.let(x)
    value = _wave(k, x, 0, lanes)
    return as_float(as_bits(value, lanes) ^ (as_bits(x, lanes) & integer(-0x80000000, lanes)), lanes)


def cos(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The cosine; NaN of infinities."""
    return _wave(k, k.let(x), 1, lanes)


def atan(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The arc tangent; beyond 1 it is that of the reciprocal, taken from pi / 2."""
    unit = constant(k, 1.0, lanes)
    x = k.let(x)
    size = k.let(absolute(k, x, lanes))
    z = k.let(select(k, size > unit, unit / size, size))
    square = k.let(z * z)
    near = k.let(z + z * square * polynomial(k, ATAN, square, lanes))
    far = constant(k, PI_2[0], lanes) - (near - constant(k, PI_2[1], lanes))
    return copy_sign(k, k.let(select(k, size > unit, far, near)), x, lanes)


def _wave(k: "KernelBuilder", x: "Expr", quarter: int, lanes: int) -> "Expr":
    """The sine of ``|x|`` and so many quarters of a turn."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    size = k.let(absolute(k, x, lanes))
    (near, near_quadrant), (far, far_quadrant) = _near_part(k, size, lanes), _far_part(k, size, lanes)
    r = k.let(select(k, size < c(NEAR), near, far))
    quadrant = k.let(select(k, size < c(NEAR), near_quadrant, far_quadrant) + integer(quarter, lanes))
    square = k.let(r * r)
    sine = k.let(r + r * square * polynomial(k, SINE, square, lanes))
    cosine = k.let(c(1.0) - square * c(0.5) + square * square * polynomial(k, COSINE, square, lanes))
    value = k.let(select(k, equal(quadrant & integer(1, lanes), integer(1, lanes)), cosine, sine))
    value = as_float(as_bits(value, lanes) ^ ((quadrant & integer(2, lanes)) << integer(30, lanes)), lanes)
    return k.let(select(k, size < c(float("inf")), value, c(float("nan"))))


def _near_part(k: "KernelBuilder", size: "Expr", lanes: int) -> tuple["Expr", "Expr"]:
    """What is left of a value below `NEAR` when quarters of a turn are taken away, within pi / 4, and their number
    (Cody and Waite)."""
    near = k.let(select(k, size < constant(k, NEAR, lanes), size, constant(k, 0.0, lanes)))
    turns = k.let(intrinsic("llvm.rint", near * constant(k, 0.6366197723675814, lanes), lanes))
    for part in PI_2:
        near = k.let(fused(turns, constant(k, -part, lanes), near, lanes))
    return near, k.let(cast(INT32, turns, lanes))


def _far_part(k: "KernelBuilder", size: "Expr", lanes: int) -> tuple["Expr", "Expr"]:
    """The same of a value from `NEAR` on (Payne and Hanek): the mantissa times those 96 bits of 2 / pi that reach from
    2 turns down to what rounding leaves."""
    from tvm import tirx

    def wide(value: int) -> "Expr":
        return k.splat(tirx.const(value, "uint64"), lanes)

    kind = "uint64" if lanes == 1 else f"uint64x{lanes}"
    bits = k.let(as_bits(size, lanes))
    place = k.let(
        (bits >> integer(23, lanes)) - integer(120, lanes)
    )  # of the first bit: with mantissa * 2^E, bit E + 30, E = exponent - 150
    word, shift = k.let(place >> integer(5, lanes)), k.let(tirx.Cast(kind, place & integer(31, lanes)))
    words = []
    for offset in range(4):
        chosen = wide(TWO_PI_BITS[offset])
        for first in range(1, 5):
            chosen = select(k, equal(word, integer(first, lanes)), wide(TWO_PI_BITS[first + offset]), chosen)
        words.append(k.let(chosen))
    upper, lower = k.let((words[0] << wide(32)) | words[1]), k.let((words[2] << wide(32)) | words[3])
    first_64 = k.let((upper << shift) | ((lower >> wide(1)) >> (wide(63) - shift)))
    next_32 = k.let((lower << shift) >> wide(32))
    mantissa = k.let(tirx.Cast(kind, (bits & integer(0x7FFFFF, lanes)) | integer(0x800000, lanes)))
    product = k.let(
        mantissa * first_64 + ((mantissa * next_32) >> wide(32))
    )  # quarters of a turn: 2 whole bits, 62 after the point
    quadrant = k.let(cast(INT32, (product + wide(1 << 61)) >> wide(62), lanes))
    fraction = k.let(tirx.reinterpret(INT64.tir(lanes), product << wide(2)))
    return k.let(cast(FLOAT32, fraction, lanes) * constant(k, PI_2[0] * 2.0**-64, lanes)), quadrant
