"""Elementary functions as TIR over vectors or scalars of fp32: no calls, so that objects stay without undefined symbols.

Every function binds what it uses twice, so its result may be used freely but its argument should be cheap or bound. Each takes ``lanes``: the
width of the vectors, 1 for scalars. Unless said otherwise a NaN stays a NaN and the result is within 2 units in the last place.
Polynomials are minimax fits on the stated interval, highest power first.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

LOG2_E = 1.4426950408889634
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
ERF = (8.31641154e-05, -0.000812990959, 0.00519989541, -0.0268589356, 0.11283687, -0.376126332, 0.128379167)
"""``(erf(x) - x) / x`` in x^2 on |x| <= 0.93."""
LOG_ERFC = (-1.04330226e-05, 0.000314857256, -0.00361033872, 0.0236945596, -0.106159042, -0.635198038, -1.12863707)
"""``log(1 - erf(a)) / a`` on 0.9 <= a <= 4, beyond which erf is 1 in fp32."""


def constant(k: "KernelBuilder", value: float, lanes: int) -> "Expr":
    """A number as a vector of ``lanes`` (a scalar for 1)."""
    from tvm import tirx

    return k.splat(float(value), lanes) if lanes > 1 else tirx.const(value, "float32")


def smaller(a: "Expr", b: "Expr") -> "Expr":
    """The smaller of two integers."""
    from tvm import tirx

    return tirx.Min(a, b)


def larger(a: "Expr", b: "Expr") -> "Expr":
    """The larger of two integers."""
    from tvm import tirx

    return tirx.Max(a, b)


def maximum(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The larger of two values in one instruction. A NaN in ``b`` stays a NaN on every instruction set; one in ``a`` only on some."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(b.ty, "llvm.maximum", a, b) if k.isa.nan_from_either else tirx.Max(a, b)


def minimum(k: "KernelBuilder", a: "Expr", b: "Expr") -> "Expr":
    """The smaller of two values, as `maximum`."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(b.ty, "llvm.minimum", a, b) if k.isa.nan_from_either else tirx.Min(a, b)


def clamp(k: "KernelBuilder", x: "Expr", low: float, high: float, lanes: int) -> "Expr":
    """``min(high, max(low, x))``; infinite bounds cost nothing."""
    if low != float("-inf"):
        x = maximum(k, constant(k, low, lanes), x)
    return minimum(k, constant(k, high, lanes), x) if high != float("inf") else x


def select(k: "KernelBuilder", condition: "Expr", then: "Expr", otherwise: "Expr") -> "Expr":
    """``then`` in the lanes where the condition holds, else ``otherwise``; both are computed."""
    from tvm import tirx

    return tirx.Select(condition, then, otherwise)


def absolute(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    return _float(_bits(x, lanes) & _integer(0x7FFFFFFF, lanes), lanes)


def copy_sign(k: "KernelBuilder", magnitude: "Expr", sign: "Expr", lanes: int) -> "Expr":
    """A value that is not negative, with the sign of another."""
    return _float(_bits(magnitude, lanes) | (_bits(sign, lanes) & _integer(-0x80000000, lanes)), lanes)


def sqrt(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The square root, exactly rounded (an instruction)."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(_type("float32", lanes), "llvm.sqrt", x)


def exp(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``e^x`` down to denormal results: 0 far below, infinity above 88.73."""
    mantissa, power = _exp_parts(k, k.let(clamp(k, x, -104.0, 89.0, lanes)), lanes)
    half = k.let(power >> _integer(1, lanes))  # 2^power itself need not be a normal number; its two halves are
    return mantissa * _power_of_two(half, lanes) * _power_of_two(power - half, lanes)


def exp_bounded(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``e^x``, cheaper: stops at 1.2e-38 below and is infinity already above 88.376."""
    mantissa, power = _exp_parts(k, k.let(clamp(k, x, -87.33654, 88.5, lanes)), lanes)
    return mantissa * _power_of_two(power, lanes)


def log(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The natural logarithm: minus infinity at 0, NaN below, denormals included."""
    from tvm import tirx

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    x = k.let(x)
    scaled = k.let(select(k, x < c(1.17549435e-38), x * c(8388608.0), x))  # by 2^23, so that denormals have an exponent
    bits = k.let(_bits(scaled, lanes))
    power = k.let((bits - _integer(SQRT_HALF_BITS, lanes)) >> _integer(23, lanes))
    f = k.let(_float(bits - (power << _integer(23, lanes)), lanes) - c(1.0))
    exponent = k.let(tirx.Cast(_type("float32", lanes), power) - select(k, x < c(1.17549435e-38), c(23.0), c(0.0)))
    square = k.let(f * f)
    low = square * (f * _polynomial(k, LOG, f, lanes) - c(0.5)) + exponent * c(LN2_LOW)
    value = k.let(f + low + exponent * c(LN2_HIGH))
    value = k.let(select(k, x < c(float("inf")), value, x))  # infinity and NaN stay what they are
    value = k.let(select(k, x < c(0.0), c(float("nan")), value))
    return select(k, tirx.EQ(x, c(0.0)), c(float("-inf")), value)


def sigmoid(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """``1 / (1 + e^-x)``, within 3 units in the last place; 0 below -88.376."""
    one = constant(k, 1.0, lanes)
    return one / (one + exp_bounded(k, constant(k, 0.0, lanes) - x, lanes))


def tanh(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The hyperbolic tangent: a polynomial near 0, elsewhere ``1 - 2 / (e^2|x| + 1)``."""
    x = k.let(x)
    size = k.let(absolute(k, x, lanes))
    square = k.let(size * size)
    near = k.let(size + size * square * _polynomial(k, TANH, square, lanes))
    one, two = constant(k, 1.0, lanes), constant(k, 2.0, lanes)
    far = k.let(one - two / (exp_bounded(k, size * two, lanes) + one))
    return copy_sign(k, select(k, size < constant(k, 0.625, lanes), near, far), x, lanes)


def erf(k: "KernelBuilder", x: "Expr", lanes: int) -> "Expr":
    """The error function: a polynomial near 0, elsewhere ``1 - e^p(|x|)``."""
    x = k.let(x)
    size = k.let(absolute(k, x, lanes))
    square = k.let(x * x)
    near = k.let(x + x * _polynomial(k, ERF, square, lanes))
    bounded = k.let(clamp(k, size, float("-inf"), 4.0, lanes))
    far = k.let(constant(k, 1.0, lanes) - exp_bounded(k, bounded * _polynomial(k, LOG_ERFC, bounded, lanes), lanes))
    return select(k, size < constant(k, 0.92, lanes), near, copy_sign(k, far, x, lanes))


def _exp_parts(k: "KernelBuilder", x: "Expr", lanes: int) -> tuple["Expr", "Expr"]:
    """``e^r`` and the integer n of ``x = n ln 2 + r``."""

    def c(value: float) -> "Expr":
        return constant(k, value, lanes)

    bits = k.let(_bits(x * c(LOG2_E) + c(ROUNDER), lanes))
    n = k.let(_float(bits, lanes) - c(ROUNDER))  # through the bits, or TVM's simplifier takes the two ROUNDERs away
    r = k.let(x - n * c(LN2_HIGH) - n * c(LN2_LOW))
    mantissa = k.let(r * r * _polynomial(k, EXP, r, lanes) + r + c(1.0))
    return mantissa, k.let(bits - _integer(0x4B400000, lanes))  # the bits of ROUNDER


def _power_of_two(exponent: "Expr", lanes: int) -> "Expr":
    return _float((exponent + _integer(127, lanes)) << _integer(23, lanes), lanes)


def _polynomial(k: "KernelBuilder", coefficients: tuple[float, ...], x: "Expr", lanes: int) -> "Expr":
    value = constant(k, coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = k.let(value * x + constant(k, coefficient, lanes))
    return value


def _type(element: str, lanes: int) -> str:
    return f"{element}x{lanes}" if lanes > 1 else element


def _bits(x: "Expr", lanes: int) -> "Expr":
    from tvm import tirx

    return tirx.reinterpret(_type("int32", lanes), x)


def _float(bits: "Expr", lanes: int) -> "Expr":
    from tvm import tirx

    return tirx.reinterpret(_type("float32", lanes), bits)


def _integer(value: int, lanes: int) -> "Expr":
    from tvm import tirx

    scalar = tirx.const(value, "int32")
    return tirx.Broadcast(scalar, tirx.const(lanes, "int32")) if lanes > 1 else scalar
