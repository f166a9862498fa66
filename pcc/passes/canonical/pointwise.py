"""Element by element: activations and arithmetic become ``pcc::elementwise``, with scalars as literals and broadcasting as PyTorch has it."""

from collections.abc import Callable
from functools import wraps
from math import pi, sqrt
from typing import Any

import torch
from torch.fx import Node

from pcc.ir.activation import LARGEST
from pcc.ir.expression import Call, Expr, Literal, Operand
from pcc.ir.graph import constant, replace, rewrite, shape_of
from pcc.ir.ops import ELEMENTWISE
from pcc.passes.canonical import CannotCompile, Rule, require_fp32
from pcc.passes.canonical.moves import make_reshape

_aten: Any = torch.ops.aten

_ONE, _TWENTY = Literal(1.0), Literal(20.0)


def elementwise(formula: Callable[..., Expr]) -> Rule:
    """A rule from a formula over the operator's arguments: tensors come as operands, numbers as literals, the rest as they are."""

    @wraps(formula)  # the rule names the arguments that the formula names
    def rule(node: Node, **values: Any) -> None:
        require_fp32(node)
        operands: list[Node] = []
        terms = {name: _term(value, operands) for name, value in values.items()}
        expression = formula(**terms)
        if not operands:
            raise CannotCompile("computed from numbers alone")
        rewrite(node, ELEMENTWISE, (operands, str(expression)))

    return rule


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
    if not abs(value) <= LARGEST:
        raise CannotCompile(f"the number {value} among its arguments")
    return Literal(float(value))


def _call(function: str, *args: Expr | float) -> Expr:
    return Call(function, tuple(arg if isinstance(arg, Call | Operand | Literal) else Literal(float(arg)) for arg in args))


def _unary(function: str) -> Callable[..., Expr]:
    return lambda self: Call(function, (self,))


def _scaled(x: Expr, alpha: Literal) -> Expr:
    return x if alpha.value == 1 else Literal(x.value * alpha.value) if isinstance(x, Literal) else _call("mul", x, alpha)


def _add(self: Expr, other: Expr, alpha: Literal) -> Expr:
    return _call("add", self, _scaled(other, alpha))


def _sub(self: Expr, other: Expr, alpha: Literal) -> Expr:
    return _call("sub", self, _scaled(other, alpha))


def _rsub(self: Expr, other: Expr, alpha: Literal) -> Expr:
    return _call("sub", other, _scaled(self, alpha))


def _mul(self: Expr, other: Expr) -> Expr:
    return _call("mul", self, other)


def _div(self: Expr, other: Expr, rounding_mode: str | None = None) -> Expr:
    if rounding_mode is not None:
        raise CannotCompile(f"division with rounding '{rounding_mode}'")
    return _call("div", self, other)


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


def _leaky_relu(self: Expr, negative_slope: Literal) -> Expr:
    return Call("leaky_relu", (self, negative_slope))


def _gelu(self: Expr, approximate: str) -> Expr:
    """The tanh form as ``x * sigmoid(2u)``, which is ``x * (1 + tanh(u)) / 2`` without the cancelling sum."""
    if approximate == "none":
        return Call("gelu", (self,))
    twice = _call("mul", _call("mul", self, _call("add", _call("mul", _call("mul", self, self), 0.044715), 1)), 2 * sqrt(2 / pi))
    return _call("mul", self, _call("sigmoid", twice))


def _elu(self: Expr, alpha: Literal, scale: Literal, input_scale: Literal) -> Expr:
    negative = _scaled(_call("expm1", _scaled(_call("min", self, 0), input_scale)), Literal(alpha.value * scale.value))
    return _call("add", _scaled(_call("relu", self), scale), negative)


def _softplus(self: Expr, beta: Literal = _ONE, threshold: Literal = _TWENTY) -> Expr:
    return Call("softplus", (self, beta, threshold))


def _pow(self: Expr, exponent: Expr) -> Expr:
    if not isinstance(exponent, Literal):
        raise CannotCompile("a power whose exponent is a tensor")
    return _call("mul", self, self) if exponent.value == 2 else Call("pow", (self, exponent))


def prelu(node: Node, self: Node, weight: Node) -> None:
    """``max(x,0) + weight * min(x,0)`` with one weight, or one for each channel."""
    require_fp32(node)
    if len(shape_of(weight)) == 1 and len(shape_of(self)) > 1:
        weight = make_reshape(node, weight, (1, *shape_of(weight), *(1,) * (len(shape_of(self)) - 2)))
    rewrite(node, ELEMENTWISE, ([self, weight], "add(relu(x0),mul(x1,min(x0,0)))"))


_FORMULAS: dict[Any, Callable[..., Expr]] = {
    **{getattr(_aten, name).default: _unary(name) for name in ("relu", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh")},
    **{getattr(_aten, name).default: _unary(name) for name in ("neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal")},
    _aten.relu6.default: lambda self: _call("clip", self, 0, 6),
    _aten.hardtanh.default: lambda self, min_val, max_val: _clamp(self, min_val, max_val),
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
    **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar, _aten.div.Tensor_mode, _aten.div.Scalar_mode), _div),
    **dict.fromkeys((_aten.maximum.default, _aten.max.other), lambda self, other: _call("max", self, other)),
    **dict.fromkeys((_aten.minimum.default, _aten.min.other), lambda self, other: _call("min", self, other)),
    **dict.fromkeys((_aten.pow.Tensor_Scalar, _aten.pow.Tensor_Tensor), _pow),
}

RULES: dict[Any, Rule] = {
    **{target: elementwise(formula) for target, formula in _FORMULAS.items()},
    **dict.fromkeys((_aten.clamp.default, _aten.clamp.Tensor, _aten.clip.default), clamp),
    **dict.fromkeys((_aten.clamp_min.default, _aten.clamp_min.Tensor, _aten.clamp_max.default, _aten.clamp_max.Tensor), clamp),
    **dict.fromkeys((_aten.prelu.default, _aten._prelu_kernel.default), prelu),
    ELEMENTWISE: require_fp32,
}
