"""Element by element: activations and arithmetic become ``pcc::elementwise``, with scalars as literals and broadcasting
as PyTorch has it."""

from collections.abc import Callable
from functools import wraps
from math import inf, log, pi, sqrt
from typing import Any

import torch
from torch.fx import Node

from pcc.dtype import full_name
from pcc.ir.activation import LARGEST
from pcc.ir.expression import COMPARISONS, Call, Expr, Literal, Operand, is_truth
from pcc.ir.graph import constant, is_constant, replace, rewrite, shape_of
from pcc.ir.ops import ELEMENTWISE
from pcc.passes.canonical import WHOLE, CannotCompile, Rule, require_fp32
from pcc.passes.canonical.moves import make_reshape

_aten: Any = torch.ops.aten

_ONE, _TWENTY = Literal(1.0), Literal(20.0)
_LEAVES_RANGE = ("add", "sub", "mul", "pow", "neg", "abs", "trunc")
"""Functions whose result may be a whole number that its type does not have."""


def elementwise(formula: Callable[..., Expr]) -> Rule:
    """A rule from a formula over the operator's arguments: tensors come as operands, numbers as literals, the rest as
    they are."""

    @wraps(formula)  # the rule names the arguments that the formula names
    def rule(node: Node, **values: Any) -> None:
        require_fp32(node)
        operands: list[Node] = []
        terms = {name: _term(value, operands) for name, value in values.items()}
        expression = _wrapped(formula(**terms), node.meta["val"].dtype)
        if not operands:
            raise CannotCompile("computed from numbers alone")
        rewrite(node, ELEMENTWISE, (operands, str(expression)))

    return rule


def _wrapped(value: Expr, dtype: torch.dtype) -> Expr:
    """Arithmetic of 8 bits, which begins again where it ends, and of truth; that of more bits is exact up to 2^24."""
    if not isinstance(value, Call) or value.function not in _LEAVES_RANGE:
        return value
    if dtype == torch.bool:
        return _truth(value)
    if dtype not in (torch.uint8, torch.int8):
        return value
    above = value if dtype == torch.uint8 else _call("add", value, 128)
    return _call("sub", value, _call("mul", _call("floor", _call("mul", above, 1 / 256)), 256))


def _term(value: Any, operands: list[Node]) -> Any:
    """An argument as part of a formula; tensors are collected in ``operands``."""
    if isinstance(value, Node) and value.op == "get_attr" and shape_of(value) == ():
        value = float(constant(value))
    if isinstance(value, Node):
        if value not in operands:
            operands.append(value)
        return Operand(operands.index(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    value = float(value)
    if not abs(value) <= LARGEST and abs(value) != inf:
        raise CannotCompile(f"the number {value} among its arguments")
    return Literal(value)


def _call(function: str, *args: Expr | float) -> Expr:
    return Call(
        function, tuple(arg if isinstance(arg, Call | Operand | Literal) else Literal(float(arg)) for arg in args)
    )


def _unary(function: str) -> Callable[..., Expr]:
    return lambda self: Call(function, (self,))


def _scaled(x: Expr, alpha: Literal) -> Expr:
    return (
        x if alpha.value == 1 else Literal(x.value * alpha.value) if isinstance(x, Literal) else _call("mul", x, alpha)
    )


def _add(self: Expr, other: Expr, alpha: Literal) -> Expr:
    return _call("add", self, _scaled(other, alpha))


def _sub(self: Expr, other: Expr, alpha: Literal) -> Expr:
    return _call("sub", self, _scaled(other, alpha))


def _rsub(self: Expr, other: Expr, alpha: Literal) -> Expr:
    return _call("sub", other, _scaled(self, alpha))


def _mul(self: Expr, other: Expr) -> Expr:
    return _call("mul", self, other)


def _div(self: Expr, other: Expr, rounding_mode: str | None = None) -> Expr:
    quotient = _call("div", self, other)
    return quotient if rounding_mode is None else _call(rounding_mode, quotient)


def _remainder(self: Expr, other: Expr) -> Expr:
    """With the sign of the divisor."""
    rest = _call("fmod", self, other)
    return _where(_signs_differ(rest, other), _call("add", rest, other), rest)


def _floor_divide(self: Expr, other: Expr) -> Expr:
    """Of fp32 values, the quotient that belongs to the remainder: the rounded one may be a whole number too high."""
    rest = _call("fmod", self, other)
    times = _call("round", _call("div", _call("sub", self, rest), other))
    times = _call("sub", times, _signs_differ(rest, other))
    return _where(_call("eq", other, 0), _call("div", self, other), times)


def _signs_differ(rest: Expr, divisor: Expr) -> Expr:
    return _call("mul", _call("ne", rest, 0), _call("ne", _call("lt", rest, 0), _call("lt", divisor, 0)))


def divide(node: Node, self: Node, other: Any, rounding_mode: str | None = None) -> None:
    if rounding_mode == "floor" and node.meta["val"].dtype not in WHOLE:
        elementwise(_floor_divide)(node, self=self, other=other)
    else:
        elementwise(_div)(node, self=self, other=other, rounding_mode=rounding_mode)


def floor_divide(node: Node, self: Node, other: Any) -> None:
    divide(node, self, other, "floor")


def _clamp(self: Expr, min: Expr | None = None, max: Expr | None = None) -> Expr:
    if isinstance(min, Literal) and isinstance(max, Literal):
        return Call("clip", (self, min, max))
    if min is not None:
        self = Call("relu", (self,)) if min == Literal(0.0) else _call("max", self, min)
    return self if max is None else _call("min", self, max)


def clamp(node: Node, self: Node, min: Any = None, max: Any = None) -> None:
    """``clamp`` in its forms; a bound that no fp32 number is beyond is none."""
    low = None if isinstance(min, int | float) and min < -LARGEST else min
    high = None if isinstance(max, int | float) and max > LARGEST else max
    if low is None and high is None:
        require_fp32(node)
        replace(node, self)
    else:
        elementwise(_clamp)(node, self=self, min=low, max=high)


def hardtanh(node: Node, self: Node, min_val: float, max_val: float) -> None:
    clamp(node, self, min_val, max_val)


def _leaky_relu(self: Expr, negative_slope: Literal) -> Expr:
    return Call("leaky_relu", (self, negative_slope))


def _gelu(self: Expr, approximate: str) -> Expr:
    """The tanh form as ``x * sigmoid(2u)``, which is ``x * (1 + tanh(u)) / 2`` without the cancelling sum."""
    if approximate == "none":
        return Call("gelu", (self,))
    twice = _call(
        "mul", _call("mul", self, _call("add", _call("mul", _call("mul", self, self), 0.044715), 1)), 2 * sqrt(2 / pi)
    )
    return _call("mul", self, _call("sigmoid", twice))


def _elu(self: Expr, alpha: Literal, scale: Literal, input_scale: Literal) -> Expr:
    negative = _scaled(_call("expm1", _scaled(_call("min", self, 0), input_scale)), Literal(alpha.value * scale.value))
    return _call("add", _scaled(_call("relu", self), scale), negative)


def _softplus(self: Expr, beta: Literal = _ONE, threshold: Literal = _TWENTY) -> Expr:
    return Call("softplus", (self, beta, threshold))


def _pow(self: Expr, exponent: Expr) -> Expr:
    """Of numbers that are usual what is cheaper."""
    if self == Literal(2.0):
        return _call("exp2", exponent)
    return _call("mul", self, self) if exponent == Literal(2.0) else _call("pow", self, exponent)


def _of_truth(formula: Callable[..., Expr]) -> Rule:
    """Of truth values only: what an operator does with the bits of whole numbers is not what it does with truth."""
    rule = elementwise(formula)

    @wraps(formula)
    def checked(node: Node, **values: Any) -> None:
        if node.meta["val"].dtype != torch.bool:
            raise CannotCompile(f"works on the bits of {full_name(node.meta['val'].dtype)}")
        rule(node, **values)

    return checked


def _log2(self: Expr) -> Expr:
    """Exact for powers of two, of which the levels of a pyramid are computed."""
    value = _call("mul", _call("log", self), 1 / log(2))
    whole = _call("round", value)
    return _where(_call("eq", _call("exp2", whole), self), whole, value)


def _odd(formula: Callable[[Expr], Expr]) -> Callable[..., Expr]:
    """A function whose sign is its argument's, by a formula for arguments that are not negative."""

    def signed(self: Expr) -> Expr:
        value = formula(_call("abs", self))
        return _where(_call("lt", self, 0), _call("neg", value), value)

    return signed


def _sinh(size: Expr) -> Expr:
    """``(t + t / (t + 1)) / 2`` with ``t = e^x - 1``; where nothing is left of e^-x, from two halves of the exponent,
    which do not overflow."""
    less, root = _call("expm1", size), _call("exp", _call("mul", size, 0.5))
    near = _call("mul", _call("add", less, _call("div", less, _call("add", less, 1))), 0.5)
    return _where(_call("gt", size, 40), _call("mul", _call("mul", root, 0.5), root), near)


def _cosh(self: Expr) -> Expr:
    root = _call("exp", _call("mul", _call("abs", self), 0.5))
    half = _call("mul", _call("mul", root, 0.5), root)
    return _call("add", half, _call("div", 0.25, half))


def _asinh(size: Expr) -> Expr:
    """``log(x + sqrt(x^2 + 1))`` without the sum that loses digits near 0; from 1e4 on the root is x and half its
    reciprocal."""
    square = _call("mul", size, size)
    near = _call(
        "log1p", _call("add", size, _call("div", square, _call("add", _call("sqrt", _call("add", square, 1)), 1)))
    )
    return _where(_call("gt", size, 1e4), _call("add", _call("log", size), log(2)), near)


def _acosh(self: Expr) -> Expr:
    less = _call("sub", self, 1)
    near = _call("log1p", _call("add", less, _call("mul", _call("sqrt", less), _call("sqrt", _call("add", self, 1)))))
    return _where(_call("gt", self, 1e4), _call("add", _call("log", self), log(2)), near)


def _atanh(size: Expr) -> Expr:
    return _call("mul", _call("log1p", _call("div", _call("mul", size, 2), _call("sub", 1, size))), 0.5)


def _asin(self: Expr) -> Expr:
    return _call("atan", _call("div", self, _call("sqrt", _call("mul", _call("sub", 1, self), _call("add", self, 1)))))


def _acos(self: Expr) -> Expr:
    return _call("mul", _call("atan", _call("sqrt", _call("div", _call("sub", 1, self), _call("add", self, 1)))), 2)


def _atan2(self: Expr, other: Expr) -> Expr:
    """The angle of (other, self) to the first axis; 0 where both are 0."""
    rise, run = _call("abs", self), _call("abs", other)
    angle = _call("atan", _where(_call("eq", rise, run), 1, _call("div", rise, run)))
    turned = _where(_call("lt", other, 0), _call("sub", pi, angle), angle)
    flat = _where(_call("lt", other, 0), pi, _where(_call("eq", other, other), 0, other))
    turned = _where(rise, turned, flat)
    return _where(_call("lt", self, 0), _call("neg", turned), turned)


def _logaddexp(self: Expr, other: Expr) -> Expr:
    away = _where(_call("eq", self, other), 0, _call("abs", _call("sub", self, other)))
    return _call("add", _call("max", self, other), _call("log1p", _call("exp", _call("neg", away))))


def _not(self: Expr) -> Expr:
    return _call("eq", self, 0)


def _and(self: Expr, other: Expr) -> Expr:
    return _call("mul", _truth(self), _truth(other))


def _or(self: Expr, other: Expr) -> Expr:
    return _call("max", _truth(self), _truth(other))


def _xor(self: Expr, other: Expr) -> Expr:
    return _call("ne", _truth(self), _truth(other))


def _truth(x: Expr) -> Expr:
    return x if is_truth(x) else _call("ne", x, 0)


def _nan_to_num(
    self: Expr, nan: Literal | None = None, posinf: Literal | None = None, neginf: Literal | None = None
) -> Expr:
    high, low = posinf or Literal(LARGEST), neginf or Literal(-LARGEST)
    finite = _where(_call("eq", self, inf), high, _where(_call("eq", self, -inf), low, self))
    return _where(_call("ne", self, self), nan or Literal(0.0), finite)


def _rrelu(self: Expr, lower: Literal, upper: Literal, training: bool = False) -> Expr:
    if training:
        raise CannotCompile("a random slope in training mode")
    return _leaky_relu(self, Literal((lower.value + upper.value) / 2))


def _hypot(self: Expr, other: Expr) -> Expr:
    """Of the larger times what the smaller adds to it: squares of large numbers are infinite."""
    x, y = _call("abs", self), _call("abs", other)
    larger, part = _call("max", x, y), _call("div", _call("min", x, y), _call("max", x, y))
    length = _call("mul", larger, _call("sqrt", _call("add", _call("mul", part, part), 1)))
    return _where(_call("eq", larger, 0), 0, _where(_call("eq", larger, inf), inf, length))


def _logit(self: Expr, eps: Literal | None = None) -> Expr:
    x = self if eps is None else _clamp(self, eps, Literal(1 - eps.value))
    return _call("log", _call("div", x, _call("sub", 1, x)))


def _where(condition: Expr, self: Expr | float, other: Expr | float) -> Expr:
    return _call("where", condition, self, other)


def convert(node: Node, self: Node, **_: Any) -> None:
    """To another type: whole numbers are truncated, truth is what is not 0, and both are fp32 values from then on."""
    before, after = self.meta["val"].dtype, node.meta["val"].dtype
    if after == torch.float32 and is_constant(self):
        return  # fold-constants does it
    if after == before or after == torch.float32:
        require_fp32(node)
        replace(node, self)
    elif after == torch.bool:
        elementwise(lambda self: _call("ne", self, 0))(node, self=self)
    elif after in WHOLE:
        elementwise(lambda self: _call("trunc", self))(node, self=self)
    else:
        raise CannotCompile(f"converts {full_name(self.meta['val'].dtype)} to {full_name(node.meta['val'].dtype)}")


def prelu(node: Node, self: Node, weight: Node) -> None:
    """With one weight, or one for each channel."""
    require_fp32(node)
    if len(shape_of(weight)) == 1 and len(shape_of(self)) > 1:
        weight = make_reshape(node, weight, (1, *shape_of(weight), *(1,) * (len(shape_of(self)) - 2)))
    rewrite(node, ELEMENTWISE, ([self, weight], "prelu(x0,x1)"))


def _comparison(name: str) -> Callable[..., Expr]:
    return lambda self, other: _call(name, self, other)


_FORMULAS: dict[Any, Callable[..., Expr]] = {
    **{getattr(getattr(_aten, name), kind): _comparison(name) for name in COMPARISONS for kind in ("Tensor", "Scalar")},
    **{getattr(_aten, name).default: _unary(name) for name in ("floor", "ceil", "trunc", "round", "erf", "exp2")},
    _aten.sign.default: lambda self: _call("sub", _call("gt", self, 0), _call("lt", self, 0)),
    _aten.frac.default: lambda self: _call("sub", self, _call("trunc", self)),
    _aten.isnan.default: lambda self: _call("ne", self, self),
    _aten.isinf.default: lambda self: _call("eq", _call("abs", self), inf),
    _aten.log2.default: _log2,
    _aten.log10.default: lambda self: _call("mul", _call("log", self), 1 / log(10)),
    **{getattr(_aten, name).default: _unary(name) for name in ("sin", "cos", "atan")},
    _aten.tan.default: lambda self: _call("div", _call("sin", self), _call("cos", self)),
    _aten.asin.default: _asin,
    _aten.acos.default: _acos,
    _aten.atan2.default: _atan2,
    _aten.sinh.default: _odd(_sinh),
    _aten.cosh.default: _cosh,
    _aten.asinh.default: _odd(_asinh),
    _aten.acosh.default: _acosh,
    _aten.atanh.default: _odd(_atanh),
    _aten.logaddexp.default: _logaddexp,
    _aten.hypot.default: _hypot,
    **dict.fromkeys((_aten.logit.default, _aten.special_logit.default), _logit),
    _aten.isfinite.default: lambda self: _call("lt", _call("abs", self), inf),
    _aten.isposinf.default: lambda self: _call("eq", self, inf),
    _aten.isneginf.default: lambda self: _call("eq", self, -inf),
    _aten.signbit.default: lambda self: _call("lt", self, 0),
    _aten.heaviside.default: lambda self, values: _where(self, _call("gt", self, 0), values),
    _aten.logical_not.default: _not,
    _aten.logical_and.default: _and,
    _aten.logical_or.default: _or,
    _aten.logical_xor.default: _xor,
    **dict.fromkeys((_aten.where.self, _aten.where.ScalarOther, _aten.where.ScalarSelf, _aten.where.Scalar), _where),
    **dict.fromkeys(
        (_aten.masked_fill.Scalar, _aten.masked_fill.Tensor), lambda self, mask, value: _where(mask, value, self)
    ),
    _aten.threshold.default: lambda self, threshold, value: _where(_call("le", self, threshold), value, self),
    **dict.fromkeys((_aten.remainder.Tensor, _aten.remainder.Scalar), _remainder),
    **dict.fromkeys((_aten.fmod.Tensor, _aten.fmod.Scalar), lambda self, other: _call("fmod", self, other)),
    _aten.nan_to_num.default: _nan_to_num,
    _aten.rrelu.default: _rrelu,
    **{
        getattr(_aten, name).default: _unary(name)
        for name in ("relu", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh")
    },
    **{
        getattr(_aten, name).default: _unary(name)
        for name in ("neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal")
    },
    _aten.relu6.default: lambda self: _call("clip", self, 0, 6),
    _aten.leaky_relu.default: _leaky_relu,
    _aten.gelu.default: _gelu,
    _aten.elu.default: _elu,
    _aten.celu.default: lambda self, alpha: _elu(self, alpha, _ONE, Literal(1 / alpha.value)),
    _aten.softplus.default: _softplus,
    _aten.log_sigmoid.default: lambda self: _call("neg", _softplus(_call("neg", self))),
    _aten.mish.default: lambda self: _call("mul", self, _call("tanh", _softplus(self))),
    **dict.fromkeys((_aten.add.Tensor, _aten.add.Scalar), _add),
    **dict.fromkeys((_aten.sub.Tensor, _aten.sub.Scalar), _sub),
    **dict.fromkeys((_aten.rsub.Tensor, _aten.rsub.Scalar), _rsub),
    **dict.fromkeys((_aten.mul.Tensor, _aten.mul.Scalar), _mul),
    **dict.fromkeys((_aten.maximum.default, _aten.max.other), lambda self, other: _call("max", self, other)),
    **dict.fromkeys((_aten.minimum.default, _aten.min.other), lambda self, other: _call("min", self, other)),
    **dict.fromkeys((_aten.pow.Tensor_Scalar, _aten.pow.Tensor_Tensor, _aten.pow.Scalar), _pow),
}

_BITWISE: dict[Any, Callable[..., Expr]] = {
    _aten.bitwise_not.default: _not,
    **dict.fromkeys(
        (_aten.bitwise_and.Tensor, _aten.bitwise_and.Scalar, _aten.__and__.Tensor, _aten.__and__.Scalar), _and
    ),
    **dict.fromkeys((_aten.bitwise_or.Tensor, _aten.bitwise_or.Scalar, _aten.__or__.Tensor, _aten.__or__.Scalar), _or),
    **dict.fromkeys(
        (_aten.bitwise_xor.Tensor, _aten.bitwise_xor.Scalar, _aten.__xor__.Tensor, _aten.__xor__.Scalar), _xor
    ),
}

RULES: dict[Any, Rule] = {
    **{target: elementwise(formula) for target, formula in _FORMULAS.items()},
    **{target: _of_truth(formula) for target, formula in _BITWISE.items()},
    **dict.fromkeys(
        (_aten._to_copy.default, _aten.to.dtype, _aten.to.dtype_layout, _aten.to.device, _aten.type_as.default), convert
    ),
    **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar, _aten.div.Tensor_mode, _aten.div.Scalar_mode), divide),
    **dict.fromkeys((_aten.floor_divide.default, _aten.floor_divide.Scalar), floor_divide),
    **dict.fromkeys((_aten.clamp.default, _aten.clamp.Tensor, _aten.clip.default), clamp),
    **dict.fromkeys(
        (_aten.clamp_min.default, _aten.clamp_min.Tensor, _aten.clamp_max.default, _aten.clamp_max.Tensor), clamp
    ),
    _aten.hardtanh.default: hardtanh,
    **dict.fromkeys((_aten.prelu.default, _aten._prelu_kernel.default), prelu),
    ELEMENTWISE: require_fp32,
}
