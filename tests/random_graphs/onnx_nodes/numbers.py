"""Nodes that compute numbers: along axes, and element by element."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.random_graphs.builder import Unfit
from tests.random_graphs.onnx_builder import OnnxBuilder, apart, broadcast, constant_for, scalar, whole

# ---- along axes ----


def reduce(b: OnnxBuilder) -> None:
    x = b.real()
    operator = b.random.choice(
        ["Mean", "Mean", "Sum", "Max", "Min", "L1", "L2", "LogSumExp", "SumSquare", "Prod", "LogSum"]
    )
    axes = b.axes(b.values[x])
    if operator == "Prod":
        x = b.add("Tanh", x)
    if operator in ("LogSum", "L2"):
        x = b.add("Add", b.add("Abs", x), scalar(0.1))
    keep = {"keepdims": int(b.flag())}
    as_input = b.opset >= 18 or (operator == "Sum" and b.opset >= 13)
    if b.random.random() < 0.2:
        b.add(f"Reduce{operator}", x, **keep)
    elif as_input:
        b.add(f"Reduce{operator}", x, whole(*axes), **keep)
    else:
        b.add(f"Reduce{operator}", x, axes=axes, **keep)


def along(b: OnnxBuilder) -> None:
    x = b.real()
    axis = b.axis(b.values[x])
    operator = b.random.choice(["Softmax", "Softmax", "LogSoftmax", "CumSum"])
    if operator == "CumSum":
        b.add("CumSum", x, np.array(axis), exclusive=int(b.flag()), reverse=int(b.flag()))
    else:
        b.add(operator, x, axis=axis)


def order(b: OnnxBuilder) -> None:
    x = b.real()
    value = b.values[x]
    axis = b.axis(value)
    apart(np.diff(np.sort(value, axis), axis=axis))
    match b.random.randrange(3):
        case 0:
            b.add("TopK", x, whole(b.size(value.shape[axis])), axis=axis, largest=int(b.flag()), outputs=2)
        case _:
            last = {"select_last_index": int(b.flag())} if b.opset >= 12 else {}
            b.add(b.random.choice(["ArgMax", "ArgMin"]), x, axis=axis, keepdims=int(b.flag()), **last)


# ---- element by element ----

_UNARY: Sequence[tuple[str, dict[str, Any]]] = [
    *(
        (name, {})
        for name in (
            "Relu",
            "Sigmoid",
            "Tanh",
            "Abs",
            "Neg",
            "Erf",
            "Softplus",
            "Softsign",
            "HardSwish",
            "Mish",
            "Gelu",
        )
    ),
    *(
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 0.7}),
        ("Selu", {}),
        ("Celu", {"alpha": 0.7}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ),
    *(
        ("HardSigmoid", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("LeakyRelu", {}),
        ("Elu", {}),
        ("Shrink", {"lambd": 0.7, "bias": 0.2}),
    ),
]
_POSITIVE = ("Log", "Sqrt", "Reciprocal", "Exp")
_JUMPS = ("Floor", "Ceil", "Round", "Sign")


def unary(b: OnnxBuilder) -> None:
    x = b.real()
    operator, attributes = b.random.choice(_UNARY)
    if (
        (operator == "HardSwish" and b.opset < 14)
        or (operator == "Gelu" and b.opset < 20)
        or (operator == "Mish" and b.opset < 18)
    ):
        raise Unfit
    if operator == "Shrink":
        apart(np.abs(b.values[x]) - np.float32(0.7))
    b.add(operator, x, **attributes)


def positive(b: OnnxBuilder) -> None:
    x = b.add("Sigmoid", b.real())
    b.add(b.random.choice(_POSITIVE), b.add("Add", x, scalar(0.1)))


def jump(b: OnnxBuilder) -> None:
    x = b.real()
    value = b.values[x]
    apart(value, value - np.round(value), value - np.floor(value) - np.float32(0.5))
    match b.random.randrange(4):
        case 0:
            b.add("Cast", x, to=b.random.choice([6, 7, 9]))
        case 1:
            b.add(b.random.choice(["Greater", "Less"]), x, scalar(0).reshape(b.random.choice([(), (1,)])))
        case 2:
            b.add("ThresholdedRelu", x, alpha=0.5) if not (np.abs(value - 0.5) < 1e-3).any() else b.add("Sign", x)
        case _:
            b.add(b.random.choice(_JUMPS), x)


def clip(b: OnnxBuilder) -> None:
    low, high = (b.random.choice([None, scalar(bound)]) for bound in (-0.5, 0.8))
    b.add("Clip", b.real(), low, high)


def power(b: OnnxBuilder) -> None:
    x = b.add("Tanh", b.real())
    exponent: Any = b.random.choice([2.0, 3.0, 0.5, -1.0])
    if exponent != int(exponent) or exponent < 0:
        x = b.add("Add", b.add("Abs", x), scalar(0.2))
    b.add(
        "Pow",
        x,
        np.array(exponent, b.random.choice([np.float32, np.int64]) if exponent == int(exponent) else np.float32),
    )


def prelu(b: OnnxBuilder) -> None:
    x = b.real(2, 3, 4)
    shape = b.values[x].shape
    slope = b.random.choice(
        [b.noise(1), b.noise(shape[1], *[1] * (len(shape) - 2)), b.noise(*shape[1:]), b.noise(shape[-1])]
    )
    b.add("PRelu", x, slope)


def binary(b: OnnxBuilder) -> None:
    x = b.real()
    value = b.values[x]
    operator = b.random.choice(["Add", "Add", "Sub", "Mul", "Mul", "Max", "Min", "Mean", "Sum"])
    other: str | np.ndarray = (
        constant_for(b, value) if b.flag() else b.pick(lambda y: y.dtype == np.float32 and broadcast(value, y))
    )
    operands = [x, other]
    b.random.shuffle(operands)
    b.add(operator, *operands)


def divide(b: OnnxBuilder) -> None:
    x, y = b.real(), b.real()
    if not broadcast(b.values[x], b.values[y]):
        raise Unfit
    b.add("Div", x, b.add("Add", b.add("Abs", y), scalar(0.5)))


def compare(b: OnnxBuilder) -> None:
    x = b.real()
    y = b.pick(lambda y: y.dtype == np.float32 and broadcast(b.values[x], y))
    apart(b.values[x] - b.values[y])
    b.add(
        b.random.choice(["Greater", "Less", *(["GreaterOrEqual", "LessOrEqual"] if b.opset >= 12 else []), "Equal"]),
        x,
        y,
    )


def truth(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.bool_)
    value = b.values[x]
    match b.random.randrange(4):
        case 0:
            b.add("Not", x)
        case 1:
            b.add(
                b.random.choice(["And", "Or", "Xor"]), x, b.pick(lambda y: y.dtype == np.bool_ and broadcast(value, y))
            )
        case 2:
            b.add("Cast", x, to=b.random.choice([1, 6, 7]))
        case _:
            fit = lambda y: y.dtype == np.float32 and broadcast(value, y)  # noqa: E731
            b.add("Where", x, b.pick(fit), b.random.choice([scalar(0.5), constant_for(b, value)]))


def integers(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype.type in (np.int64, np.int32))
    value = b.values[x]
    number = np.array(b.size(4), value.dtype)
    match b.random.randrange(6):
        case 0:
            b.add("Mod", x, number, fmod=int(b.flag()))
        case 1:
            b.add("Cast", x, to=b.random.choice([1, 6, 7, 9]))
        case 2:
            b.add(b.random.choice(["Equal", "Greater", "Less"]), x, number)
        case 3:
            b.add(b.random.choice(["Abs", "Neg", "Sign"]), x)
        case _:
            b.add(b.random.choice(["Add", "Sub", "Mul", "Div"]), x, number)


def shape_chain(b: OnnxBuilder) -> None:
    """A reshape whose sizes come from the value's own shape, as exporters write it."""
    x = b.pick(lambda x: x.ndim > 1)
    first = b.add("Gather", b.add("Shape", x), np.array(0), axis=0)
    first = b.add("Unsqueeze", first, whole(0)) if b.opset >= 13 else b.add("Unsqueeze", first, axes=[0])
    b.add("Reshape", x, b.add("Concat", first, whole(-1), axis=0))


STEPS = [
    *(
        reduce,
        reduce,
        along,
        order,
        unary,
        unary,
        positive,
        jump,
        jump,
        clip,
        power,
        prelu,
        binary,
        binary,
        binary,
        divide,
        compare,
        truth,
        truth,
    ),
    *(integers, integers, shape_chain),
]
