"""Activations that models spell out: ``mul(x,sigmoid(x))`` is ``silu(x)``, ``div(clip(add(x,3),0,6),6)`` is
``hardsigmoid(x)``, ``sub(relu(x),mul(a,relu(neg(x))))`` is ``prelu(x,a)``."""

from pcc.ir.expression import Call, Expr, Literal


def recognise(expr: Expr) -> Expr:
    """The expression with spelt-out activations replaced, innermost first."""
    if not isinstance(expr, Call):
        return expr
    expr = Call(expr.function, tuple(recognise(arg) for arg in expr.args))
    return _gate(expr) or _hardsigmoid(expr) or _prelu(expr) or expr


_GATED = {"sigmoid": "silu", "hardsigmoid": "hardswish"}


def _gate(expr: Call) -> Expr | None:
    """``x * gate(x)``, and ``x * clip(x + 3, 0, 6) / 6`` with the division last."""
    for x, gate in _either_order(expr, "mul"):
        if isinstance(gate, Call) and gate.function in _GATED and gate.args == (x,):
            return Call(_GATED[gate.function], (x,))
        if isinstance(gate, Call) and gate.function == "sigmoid":
            for factor, beta in _either_order(gate.args[0], "mul"):
                if factor == x and beta != x:
                    return Call("swish", (x, beta))
    product = _sixth(expr)
    if isinstance(product, Call):
        for x, gate in _either_order(product, "mul"):
            if _is_relu6_of_plus_3(gate, x):
                return Call("hardswish", (x,))
    return None


def _prelu(expr: Call) -> Expr | None:
    """``relu(x) + a * min(x, 0)``, ``relu(x) - a * relu(-x)``, and the choice of ``x`` and ``a * x`` by the sign."""
    if expr.function == "where":
        condition, *branches = expr.args
        if not isinstance(condition, Call) or condition.args[1:] != (Literal(0.0),):
            return None
        x, (positive, negative) = condition.args[0], branches if condition.function in ("gt", "ge") else branches[::-1]
        if condition.function not in ("gt", "ge", "lt", "le") or positive != x:
            return None
        return next((Call("prelu", (x, slope)) for value, slope in _either_order(negative, "mul") if value == x), None)
    for positive, scaled in ((expr.args[0], expr.args[1]),) if expr.function == "sub" else _either_order(expr, "add"):
        if isinstance(positive, Call) and positive.function == "relu":
            x = positive.args[0]
            below = Call("relu", (Call("neg", (x,)),)) if expr.function == "sub" else Call("min", (x, Literal(0.0)))
            for value, slope in _either_order(scaled, "mul"):
                if value == below:
                    return Call("prelu", (x, slope))
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


def _either_order(expr: Expr, function: str) -> tuple[tuple[Expr, Expr], ...]:
    if not isinstance(expr, Call) or expr.function != function:
        return ()
    return (expr.args[0], expr.args[1]), (expr.args[1], expr.args[0])
