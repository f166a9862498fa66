"""Elementary functions as TIR over vectors or scalars of fp32: no calls, so that objects stay without undefined
symbols.

Every function binds what it uses twice, so its result may be used freely but its argument should be cheap or bound.
Each takes ``lanes``: the width of the vectors, 1 for scalars. Unless said otherwise a NaN stays a NaN and the result is
within 2 units in the last place. Polynomials are minimax fits on the stated interval, highest power first.
"""

from typing import TYPE_CHECKING

from pcc.dtype import FLOAT32, INT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440054690583e-4
"""ln 2 in two parts; the product of the first with an integer below 2^15 is exact."""
ROUNDER = 12582912.0
"""1.5 * 2^23: adding it leaves a value rounded to an integer in the low bits of the mantissa."""
SQRT_HALF_BITS = 0x3F3504F3

EXP = (0.00138143489, 0.00836883743, 0.0416683998, 0.166665196, 0.499999934)
"""``(exp(r) - 1 - r) / r^2`` on |r| <= ln(2)/2."""
LOG = (-0.0763450291, 0.127615789, -0.131601805, 0.142017574, -0.166233575, 0.200012269, -0.25000821, 0.333333317)
"""``(log(1+f) - f + f^2/2) / f^3`` on sqrt(1/2) <= 1+f <= sqrt(2)."""
TANH = (-0.00570498949, 0.0206390895, -0.0537397158, 0.133314422, -0.333332819)
"""``(tanh(x) - x) / x^3`` in x^2 on |x| <= 0.625."""
ERF = (7.85386146e-05, -0.000801019371, 0.00518832775, -0.0268538129, 0.112835854, -0.37612626, 1.12837911)
"""``erf(x) / x`` in x^2 on |x| <= 1."""
NORMAL_TAIL = (
    *(0.0168932285, -0.0645416379, 0.0558899716, 0.0225969162, 0.0177463256),
    *(0.0838450044, 0.0730149522, 0.0952873975, 0.0995215103, 0.0997463241),
)
"""``P(Z > z) e^(z^2 / 2) / t`` in ``t = 1 / (1 + z / 4)`` on 0 <= z <= 14.5, beyond which the tail is 0 in fp32."""


def constant(k: "KernelBuilder", value: float, lanes: int) -> "Expr":
    """A number as a vector of ``lanes`` (a scalar for 1)."""
    from tvm import tirx

    return k.splat(float(value), lanes) if lanes > 1 else tirx.const(value, k.real.tir())


def smaller(a: "Expr", b: "Expr") -> "Expr":
    """The smaller of two integers."""
    from tvm import tirx

    return tirx.Min(a, b)


def larger(a: "Expr", b: "Expr") -> "Expr":
    """The larger of two integers."""
    from tvm import tirx

    return tirx.Max(a, b)


def maximum(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The larger of two values, NaN if either is: one instruction, on x86 three (the maximum, a comparison, a
    blend)."""
    return _nan_of_first(k, a, _larger_unless_first_nan(k, a, b))


def minimum(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The smaller of two values, as `maximum`."""
    return _nan_of_first(k, a, _smaller_unless_first_nan(k, a, b))


def combine(k: "KernelBuilder", mode: str, total: "Expr", value: "Expr") -> "Expr":
    """A running ``sum``, ``prod``, ``max`` or ``min`` with one value more."""
    match mode:
        case "sum":
            return total + value
        case "prod":
            return total * value
        case "max":
            return maximum(k, value, total)
        case _:
            return minimum(k, value, total)


def clamp(k: "KernelBuilder", x: "Expr", low: float, high: float, lanes: int) -> "Expr":
    """``min(high, max(low, x))``, an instruction a bound; infinite bounds cost nothing."""
    if low != float("-inf"):
        x = _larger_unless_first_nan(k, constant(k, low, lanes), x)
    return _smaller_unless_first_nan(k, constant(k, high, lanes), x) if high != float("inf") else x


def _nan_of_first(k: "KernelBuilder", a: "Expr", value: "Expr") -> "Expr":
    """``value``, NaN where ``a`` is. A constant NaN: were it ``a``, LLVM would merge the selects and lose the maximum
    instruction."""
    from tvm import tirx

    if k.isa.nan_from_either:
        return value
    return select(k, tirx.isnan(a), constant(k, float("nan"), a.ty.dtype.lanes), value)


def _larger_unless_first_nan(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The maximum in one instruction. A NaN in ``b`` stays a NaN on every instruction set; one in ``a`` only on
    some."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(b.ty, "llvm.maximum", a, b) if k.isa.nan_from_either else tirx.Max(a, b)


def _smaller_unless_first_nan(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(b.ty, "llvm.minimum", a, b) if k.isa.nan_from_either else tirx.Min(a, b)


def select(k: "KernelBuilder", condition: "Expr", then: "Expr", otherwise: "Expr") -> "Expr":
    """``then`` in the lanes where the condition holds, else ``otherwise``; both are computed."""
    from tvm import tirx

    return tirx.Select(condition, then, otherwise)


def equal(a: "Expr", b: "Expr") -> "Expr":
    from tvm import tirx

    return tirx.EQ(a, b)


def is_nan(x: "Expr") -> "Expr":
    from tvm import tirx

    return tirx.isnan(x)


def intrinsic(name: str, x: "Expr", lanes: int) -> "Expr":
    """An LLVM function of one value that every instruction set has as an instruction (``llvm.floor``)."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(x.ty, name, x)


def fused(a: "Expr", b: "Expr", c: "Expr", lanes: int) -> "Expr":
    """``a * b + c``, rounded once."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(FLOAT32.tir(lanes), "llvm.fma", a, b, c)


def whole_within(k: "KernelBuilder", x: "Expr", last: "Expr", lanes: int) -> "Expr":
    """A value as an integer in [0, last], whatever it is: a NaN is 0."""
    from tvm import tirx

    bound = k.let(tirx.Cast(FLOAT32.tir(), last))
    low = _larger_unless_first_nan(
        k, x, constant(k, 0.0, lanes)
    )  # 0 for a NaN; where it stays one, it is converted to 0
    return cast(INT32, _smaller_unless_first_nan(k, low, k.splat(bound, lanes)), lanes)


def absolute(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    return as_float(as_bits(x, lanes) & integer(0x7FFFFFFF, lanes), lanes)


def copy_sign(k: "KernelBuilder", magnitude: "Expr", sign: "Expr", lanes: int) -> "Expr":
    """A value that is not negative, with the sign of another."""
    return as_float(as_bits(magnitude, lanes) | (as_bits(sign, lanes) & integer(-0x80000000, lanes)), lanes)


def fmod(k: "KernelBuilder", a: "Expr", b: "Expr", lanes: int) -> "Expr":
    """What is left of ``a`` when ``b`` is taken away as often as it goes into it, with the sign of ``a``: exact while
    that is less than 2^24 times."""
    a, b = k.let(a), k.let(b)
    times = k.let(intrinsic("llvm.trunc", a / b, lanes))
    rest = k.let(fused(constant(k, 0.0, lanes) - times, b, a, lanes))
    # The quotient may have been rounded up to a whole number: then b was taken away once too often.
    other_sign = rest * copy_sign(k, constant(k, 1.0, lanes), a, lanes) < constant(k, 0.0, lanes)
    rest = select(k, other_sign, rest + copy_sign(k, absolute(k, b, lanes), a, lanes), rest)
    return select(k, equal(times, constant(k, 0.0, lanes)), a, rest)  # as it is where b is infinite


def sqrt(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The square root, exactly rounded (an instruction)."""
    return intrinsic("llvm.sqrt", x, lanes)


def exp(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``e^x`` down to denormal results: 0 far below, infinity above 88.73."""
    q, power = _exp_parts(k, k.let(clamp(k, x, -104.0, 89.0, lanes)), lanes)
    half = k.let(power >> integer(1, lanes))  # 2^power itself need not be a normal number; its two halves are
    return (q + constant(k, 1.0, lanes)) * _power_of_two(half, lanes) * _power_of_two(power - half, lanes)


def exp_bounded(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``e^x``, cheaper: stops at 1.2e-38 below and is infinity already above 88.376."""
    q, power = _exp_parts(k, k.let(clamp(k, x, -87.33654, 88.5, lanes)), lanes)
    return (q + constant(k, 1.0, lanes)) * _power_of_two(power, lanes)


def exp2(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``2^x``: 0 far below, infinity from 128 on."""
    x = k.let(clamp(k, x, -151.0, 129.0, lanes))
    whole = k.let(intrinsic("llvm.rint", x, lanes))
    r = k.let((x - whole) * constant(k, LN2, lanes))
    power = k.let(cast(INT32, whole, lanes))
    half = k.let(power >> integer(1, lanes))
    q = r * r * polynomial(k, EXP, r, lanes) + r
    return (q + constant(k, 1.0, lanes)) * _power_of_two(half, lanes) * _power_of_two(power - half, lanes)


def expm1(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``e^x - 1``, accurate near 0: with e^x = 2^n (1 + q) it is 2^n (q + (1 - 2^-n)). The zero of -0 is positive."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    q, power = _exp_parts(k, k.let(clamp(k, x, -20.0, 89.0, lanes)), lanes)
    inverse = _power_of_two(
        integer(0, lanes) - smaller(power, integer(64, lanes)), lanes
    )  # below 2^-64 it is nothing beside 1
    half = k.let(power >> integer(1, lanes))
    return (q + (c(1.0) - inverse)) * _power_of_two(half, lanes) * _power_of_two(power - half, lanes)


def log1p(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``log(1 + x)``, accurate near 0: the logarithm of the rounded sum, and what the rounding lost. The zero of -0 is
    positive."""
    x = k.let(x)
    unit = constant(k, 1.0, lanes)
    total = k.let(unit + x)
    lost = k.let(
        x - (as_float(as_bits(total, lanes), lanes) - unit)
    )  # through the bits, or TVM's simplifier makes it 0
    value = k.let(log(k, total, lanes))
    return select(
        k, absolute(k, lost, lanes) > constant(k, 0.0, lanes), value + lost / total, value
    )  # 0 or NaN at -1 and infinity


def softplus(k: "KernelBuilder", x: "Expr", lanes: int, beta: float, threshold: float) -> "Expr":
    """``log(1 + e^(beta x)) / beta`` as ``max(y, 0) + log1p(e^-|y|)``, which neither overflows nor cancels; x itself
    where ``beta x > threshold``."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    x = k.let(x)
    y = k.let(x * c(beta)) if beta != 1 else x
    smooth = clamp(k, y, 0.0, float("inf"), lanes) + log1p(k, exp(k, c(0.0) - absolute(k, y, lanes), lanes), lanes)
    return select(k, y > c(threshold), x, smooth / c(beta) if beta != 1 else smooth)


def log(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The natural logarithm: minus infinity at 0, NaN below, denormals included."""
    from tvm import tirx

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    x = k.let(x)
    scaled = k.let(select(k, x < c(1.17549435e-38), x * c(8388608.0), x))  # by 2^23, so that denormals have an exponent
    bits = k.let(as_bits(scaled, lanes))
    power = k.let((bits - integer(SQRT_HALF_BITS, lanes)) >> integer(23, lanes))
    f = k.let(as_float(bits - (power << integer(23, lanes)), lanes) - c(1.0))
    exponent = k.let(tirx.Cast(FLOAT32.tir(lanes), power) - select(k, x < c(1.17549435e-38), c(23.0), c(0.0)))
    square = k.let(f * f)
    low = square * (f * polynomial(k, LOG, f, lanes) - c(0.5)) + exponent * c(LN2_LOW)
    value = k.let(f + low + exponent * c(LN2_HIGH))
    value = k.let(select(k, x < c(float("inf")), value, x))  # infinity and NaN stay what they are
    value = k.let(select(k, x < c(0.0), c(float("nan")), value))
    return select(k, tirx.EQ(x, c(0.0)), c(float("-inf")), value)


def sigmoid(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``1 / (1 + e^-x)``, within 3 units in the last place; 0 below -88.376."""
    unit = constant(k, 1.0, lanes)
    return unit / (unit + exp_bounded(k, constant(k, 0.0, lanes) - x, lanes))


def tanh(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The hyperbolic tangent: a polynomial near 0, elsewhere ``1 - 2 / (e^2|x| + 1)``."""
    x = k.let(x)
    size = k.let(absolute(k, x, lanes))
    square = k.let(size * size)
    near = k.let(size + size * square * polynomial(k, TANH, square, lanes))
    unit, two = constant(k, 1.0, lanes), constant(k, 2.0, lanes)
    far = k.let(unit - two / (exp_bounded(k, size * two, lanes) + unit))
    return copy_sign(k, select(k, size < constant(k, 0.625, lanes), near, far), x, lanes)


def gelu(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """x times the normal distribution's P(Z < x), within 7 units in the last place.

    Only the smaller tail is computed, as a polynomial times e^(-z^2 / 2): 1 + erf(x) would cancel on the left. The
    exponent is what the square was rounded to; what it lost is a factor of its own.
    """

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    x = k.let(x)
    z = k.let(clamp(k, absolute(k, x, lanes), float("-inf"), 14.5, lanes))
    square = k.let(z * z)
    lost = k.let(fused(z, z, c(0.0) - square, lanes))
    t = k.let(c(1.0) / (c(1.0) + z * c(0.25)))
    decay = k.let(exp(k, square * c(-0.5), lanes))
    decay = k.let(decay - decay * (lost * c(0.5)))
    tail = k.let(t * polynomial(k, NORMAL_TAIL, t, lanes))
    return select(
        k, x > c(0.0), x - z * tail * decay, x * tail * decay
    )  # in this order nothing is denormal before the result is


def erf(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The error function: a polynomial near 0, elsewhere ``1 - 2 P(Z > |x| sqrt(2))`` by the normal distribution's
    tail."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    x = k.let(x)
    size = k.let(clamp(k, absolute(k, x, lanes), float("-inf"), 4.0, lanes))  # from 3.92 on it is 1
    square = k.let(size * size)
    near = k.let(size * polynomial(k, ERF, square, lanes))
    z = k.let(size * c(1.4142135623730951))
    t = k.let(c(1.0) / (c(1.0) + z * c(0.25)))
    far = k.let(c(1.0) - c(2.0) * t * polynomial(k, NORMAL_TAIL, t, lanes) * exp_bounded(k, c(0.0) - square, lanes))
    return copy_sign(k, select(k, size < c(1.0), near, far), x, lanes)


def _exp_parts(k: "KernelBuilder", x: "Expr", lanes: int) -> tuple["Expr", "Expr"]:
    """``e^r - 1`` and the integer n of ``x = n ln 2 + r``."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    bits = k.let(as_bits(x * c(LOG2_E) + c(ROUNDER), lanes))
    n = k.let(as_float(bits, lanes) - c(ROUNDER))  # through the bits, or TVM's simplifier takes the two ROUNDERs away
    r = k.let(x - n * c(LN2_HIGH) - n * c(LN2_LOW))
    q = k.let(r * r * polynomial(k, EXP, r, lanes) + r)
    return q, k.let(bits - integer(0x4B400000, lanes))  # the bits of ROUNDER


def _power_of_two(exponent: "Expr", lanes: int) -> "Expr":
    return as_float((exponent + integer(127, lanes)) << integer(23, lanes), lanes)


def polynomial(k: "KernelBuilder", coefficients: tuple[float, ...], x: "Expr", lanes: int) -> "Expr":
    value = constant(k, coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = k.let(value * x + constant(k, coefficient, lanes))
    return value


def cast(dtype: DType, x: "Expr", lanes: int) -> "Expr":
    from tvm import tirx

    return tirx.Cast(dtype.tir(lanes), x)


def as_bits(x: "Expr", lanes: int) -> "Expr":
    from tvm import tirx

    return tirx.reinterpret(INT32.tir(lanes), x)


def as_float(bits: "Expr", lanes: int) -> "Expr":
    from tvm import tirx

    return tirx.reinterpret(FLOAT32.tir(lanes), bits)


def integer(value: int, lanes: int) -> "Expr":
    from tvm import tirx

    scalar = tirx.const(value, INT32.tir())
    return tirx.Broadcast(scalar, tirx.const(lanes, INT32.tir())) if lanes > 1 else scalar
