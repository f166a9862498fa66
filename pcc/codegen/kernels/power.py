"""``base^exponent`` for any two values of fp32: ``2^(exponent log2 base)`` in double precision, where the product of a
large exponent keeps its digits."""

from collections.abc import Callable
from math import factorial, log
from typing import TYPE_CHECKING

from pcc.codegen.kernels.math import (
    absolute,
    as_bits,
    as_float,
    cast,
    constant,
    equal,
    integer,
    intrinsic,
    is_nan,
    select,
)
from pcc.dtype import FLOAT32, INT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

LOG2 = tuple(2 / log(2) / (2 * i + 1) for i in reversed(range(9)))
"""``log2(m) = s P(s^2)`` with ``s = (m - 1) / (m + 1)``: the series, for m from sqrt(1/2) to sqrt(2)."""
EXP2 = tuple(log(2) ** i / factorial(i) for i in reversed(range(10)))
"""``2^r``: the series, for |r| <= 1/2."""
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD


def power(k: "KernelBuilder", base: "Expr", exponent: "Expr", lanes: int) -> "Expr":
    """Within a unit in the last place, with C's special cases: 1 for the exponent 0 and for the base 1, NaN for a
    negative base and a broken exponent."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    base, exponent = k.let(base), k.let(exponent)
    size = k.let(absolute(k, base, lanes))
    magnitude = k.let(_power_of_size(k, size, exponent, lanes))
    whole = k.let(_equal_as_number(k, intrinsic("llvm.trunc", exponent, lanes), exponent, lanes))
    half = k.let(exponent * c(0.5))
    odd = k.let(whole - whole * _equal_as_number(k, intrinsic("llvm.trunc", half, lanes), half, lanes))
    sign = as_bits(base, lanes) & integer(-0x80000000, lanes)
    signed = k.let(select(k, odd > c(0.5), as_float(as_bits(magnitude, lanes) | sign, lanes), magnitude))
    value = k.let(select(k, base < c(0.0), k.let(select(k, whole > c(0.5), signed, c(float("nan")))), signed))
    value = k.let(select(k, is_nan(base), base, k.let(select(k, is_nan(exponent), exponent, value))))
    value = k.let(select(k, equal(base, c(1.0)), c(1.0), value))
    return select(k, equal(exponent, c(0.0)), c(1.0), value)


def _equal_as_number(k: "KernelBuilder", a: "Expr", b: "Expr", lanes: int) -> "Expr":
    """1 where two values are equal, else 0: vectors of truth values are no vectors that can be kept."""
    return select(k, equal(k.let(a), b), constant(k, 1.0, lanes), constant(k, 0.0, lanes))


def _power_of_size(k: "KernelBuilder", size: "Expr", exponent: "Expr", lanes: int) -> "Expr":
    """The power of a value that is not negative; anything for a NaN."""
    from tvm import tirx

    double, long = ("float64", "int64") if lanes == 1 else (f"float64x{lanes}", f"int64x{lanes}")

    def c(value: float) -> "Expr":
        return k.splat(tirx.const(value, "float64"), lanes)

    def i(value: int) -> "Expr":
        return k.splat(tirx.const(value, "int64"), lanes)

    bits = k.let(tirx.reinterpret(long, tirx.Cast(double, size)))  # what is denormal in fp32 is normal here
    above = k.let((bits - i(SQRT_HALF_BITS)) >> i(52))
    mantissa = k.let(tirx.reinterpret(double, bits - (above << i(52))))
    s = k.let((mantissa - c(1.0)) / (mantissa + c(1.0)))
    logarithm = k.let(tirx.Cast(double, cast(INT32, above, lanes)) + s * _series(k, LOG2, k.let(s * s), c))
    special = k.let(select(k, equal(size, constant(k, 0.0, lanes)), c(float("-inf")), logarithm))
    special = k.let(select(k, equal(size, constant(k, float("inf"), lanes)), c(float("inf")), special))
    product = k.let(special * tirx.Cast(double, exponent))
    bounded = k.let(select(k, product < c(200.0), product, c(200.0)))  # a NaN is 200
    bounded = k.let(select(k, bounded > c(-200.0), bounded, c(-200.0)))
    whole = k.let(tirx.call_llvm_pure_intrin(double, "llvm.rint", bounded))
    scale = tirx.reinterpret(long, (tirx.Cast(long, cast(INT32, whole, lanes)) + i(1023)) << i(52))
    result = k.let(cast(FLOAT32, _series(k, EXP2, k.let(bounded - whole), c) * tirx.reinterpret(double, scale), lanes))
    return select(
        k, equal(size, constant(k, 1.0, lanes)), constant(k, 1.0, lanes), result
    )  # also 1^inf, where the product is none


def _series(k: "KernelBuilder", coefficients: tuple[float, ...], x: "Expr", c: "Callable[[float], Expr]") -> "Expr":
    value = c(coefficients[0])
    for coefficient in coefficients[1:]:
        value = k.let(value * x + c(coefficient))
    return value
