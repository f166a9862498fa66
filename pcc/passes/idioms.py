"""Activations that models spell out: ``mul(x,sigmoid(x))`` is ``silu(x)``, ``div(clip(add(x,3),0,6),6)`` is
``hardsigmoid(x)``."""

from pcc.ir.expression import Call, Expr, Literal


def recognise(expr: Expr) -> Expr:
    """The expression with spelt-out activations replaced, innermost first."""
    if not isinstance(expr, Call):
        return expr
    expr = Call(expr.function, tuple(recognise(arg) for arg in expr.args))
    return _gate(expr) or _hardsigmoid(expr) or expr


_GATED = {"sigmoid": "silu", "hardsigmoid": "hardswish"}


def _gate(expr: Call) -> Expr | None:
    """``x * gate(x)``, and ``x * clip(x + 3, 0, 6) / 6`` with the division last."""
    for x, gate in _either_order(expr, "mul"):
        if isinstance(gate, Call) and gate.function in _GATED and gate.args == (x,):
            return Call(_GATED[gate.function], (x,))
    product = _sixth(expr)
    if isinstance(product, Call):
        for x, gate in _either_order(product, "mul"):
            if _is_relu6_of_plus_3(gate, x):
                return Call("hardswish", (x,))
    return None


def _hardsigmoid(expr: Call) -> Expr | None:
    """``clip(x + 3, 0, 6) / 6``."""
    clipped = _sixth(expr)
    if isinstance(clipped, Call) and clipped.function == "clip" and isinstance(clipped.args[0], Call):
        for x, _ in _either_order(clipped.args[0], "add"):
            if _is_relu6_of_plus_3(clipped, x):
                return Call("hardsigmoid", (x,))
    return None


def _is_relu6_of_plus_3(expr: Expr, x: Expr) -> bool:
    three, limits = Literal(3.0), (Literal(0.0), Literal(6.0))
    return any(expr == Call("clip", (Call("add", pair), *limits)) for pair in ((x, three), (three, x)))


def _sixth(expr: Call) -> Expr | None:
    """What is divided by six."""
    if expr.function == "div" and expr.args[1] == Literal(6.0):
        return expr.args[0]
    return next(
        (
            value
            for value, factor in _either_order(expr, "mul")
            if isinstance(factor, Literal) and abs(factor.value * 6 - 1) < 1e-7
        ),
        None,
    )


def _either_order(expr: Call, function: str) -> tuple[tuple[Expr, Expr], ...]:
    return ((expr.args[0], expr.args[1]), (expr.args[1], expr.args[0])) if expr.function == function else ()
