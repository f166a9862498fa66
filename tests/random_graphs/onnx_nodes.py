"""The nodes of an ONNX model: each function draws operands and attributes, and adds itself, as the model's opset has it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.random_graphs.builder import Unfit
from tests.random_graphs.onnx_builder import OnnxBuilder, apart

Step = Callable[[OnnxBuilder], Any]


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def scalar(number: float) -> np.ndarray:
    return np.array(number, np.float32)


def _broadcast(x: np.ndarray, y: np.ndarray) -> bool:
    return all(1 in (m, n) or m == n for m, n in zip(x.shape[::-1], y.shape[::-1], strict=False))


def _constant(b: OnnxBuilder, x: np.ndarray) -> np.ndarray:
    """Of a shape that broadcasts to the value's."""
    return b.noise(*[size if b.flag() else 1 for size in x.shape][b.random.randint(0, x.ndim) :])


# ---- windows ----


def _padding(b: OnnxBuilder, count: int, most: int) -> dict[str, Any]:
    match b.random.randrange(6):
        case 0:
            return {"auto_pad": "SAME_UPPER"}
        case 1:
            return {"auto_pad": "SAME_LOWER"}
        case 2:
            return {"auto_pad": "VALID"}
        case 3:
            return {}
        case _:
            return {"pads": [b.random.randint(0, most) for _ in range(2 * count)]}


def conv(b: OnnxBuilder) -> None:
    x = b.real(3, 4, 4)
    value = b.values[x]
    channels, count = value.shape[1], value.ndim - 2
    group = b.random.choice([1, 1, b.divisor(channels), channels])
    kernel = [b.random.choice([1, 2, 3, 3, 5]) for _ in range(count)]
    attributes: dict[str, Any] = {"group": group, **_padding(b, count, 2)}
    if b.flag():
        attributes["strides"] = [b.size(3) for _ in range(count)]
    if b.flag() and "auto_pad" not in attributes:
        attributes["dilations"] = [b.size(2) for _ in range(count)]
    if b.flag():
        attributes["kernel_shape"] = kernel
    filters = group * b.size(4)
    b.add("Conv", x, b.noise(filters, channels // group, *kernel) * np.float32(0.4), b.noise(filters) if b.flag() else None, **attributes)


def conv_transpose(b: OnnxBuilder) -> None:
    x = b.real(3, 4)
    value = b.values[x]
    channels, count = value.shape[1], value.ndim - 2
    group = b.random.choice([1, b.divisor(channels)])
    kernel, strides, dilations = [b.size(4) for _ in range(count)], [b.size(3) for _ in range(count)], [b.size(2) for _ in range(count)]
    attributes: dict[str, Any] = {"group": group, "strides": strides, "kernel_shape": kernel}
    match b.random.randrange(4):
        case 0 if all(s <= k for s, k in zip(strides, kernel, strict=True)):  # else ONNX Runtime's size is not the specification's
            attributes |= {"auto_pad": b.random.choice(["SAME_UPPER", "SAME_LOWER"])}
        case 1:
            attributes |= {"output_shape": [(n - 1) * s + k - b.random.randint(0, 1) for n, s, k in zip(value.shape[2:], strides, kernel, strict=True)]}
        case _:
            extra = [b.random.randrange(max(s, d)) for s, d in zip(strides, dilations, strict=True)]
            attributes |= {"pads": [b.random.randint(0, 1) for _ in range(2 * count)], "dilations": dilations, "output_padding": extra}
    filters = b.size(3)
    weight = b.noise(channels, filters, *kernel) * np.float32(0.4)
    b.add("ConvTranspose", x, weight, b.noise(filters * group) if b.flag() else None, **attributes)


def pool(b: OnnxBuilder) -> None:
    x = b.real(3, 4, 4)
    value = b.values[x]
    count = value.ndim - 2
    kernel = [b.size(min(4, size)) for size in value.shape[2:]]  # ONNX Runtime lets larger windows pass
    match b.random.randrange(4):
        case 0:
            b.add(b.random.choice(["GlobalAveragePool", "GlobalMaxPool"]), x)
        case 1:
            attributes = {"kernel_shape": kernel, "strides": [b.size(2) for _ in range(count)], "p": b.size(3)}
            b.add("LpPool", x, **attributes, **_padding(b, count, 0))
        case kind:
            attributes = {"kernel_shape": kernel, **_padding(b, count, max(0, min(kernel) - 1))}
            if b.flag():
                attributes["strides"] = [b.size(3) for _ in range(count)]
            if b.flag() and "auto_pad" not in attributes:
                attributes["ceil_mode"] = 1
            if kind == 2:
                if "auto_pad" not in attributes and b.flag():
                    attributes["dilations"] = [b.size(2) for _ in range(count)]
                b.add("MaxPool", x, **attributes)
            else:
                b.add("AveragePool", x, count_include_pad=int(b.flag()), **attributes)


def resize(b: OnnxBuilder) -> None:
    x = b.real(3, 4)
    value = b.values[x]
    spatial = value.ndim - 2
    mode = b.random.choice(["nearest", "linear", "linear", "cubic"])
    coordinates = b.random.choice(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = b.random.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        if spatial != 2:
            raise Unfit
        attributes["cubic_coeff_a"] = b.random.choice([-0.75, -0.5])
    if b.flag() or coordinates == "align_corners":
        b.add("Resize", x, None if b.opset >= 13 else np.zeros(0, np.float32), None if b.opset >= 13 else np.zeros(0, np.float32),
              whole(*value.shape[:2], *(b.size(9) for _ in range(spatial))), **attributes)  # fmt: skip
    else:
        factors = [b.random.choice([0.5, 1.0, 1.5, 2.0, 3.0]) for _ in range(spatial)]
        b.add("Resize", x, None if b.opset >= 13 else np.zeros(0, np.float32), np.array([1, 1, *factors], np.float32), **attributes)


# ---- products ----


def gemm(b: OnnxBuilder) -> None:
    x = b.real(2)
    rows, columns = b.values[x].shape
    a, t = b.flag(), b.flag()
    inner, outer, features = (rows, columns, b.size(6)) if a else (columns, rows, b.size(6))
    weight = b.noise(features, inner) if t else b.noise(inner, features)
    bias = b.random.choice([None, b.noise(features), b.noise(1, features), b.noise(1), b.noise(outer, 1)])
    b.add("Gemm", x, weight, bias, alpha=b.random.choice([1.0, 0.5]), beta=b.random.choice([1.0, 2.0]), transA=int(a), transB=int(t))


def matmul(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.float32 and x.ndim > 0)
    value = b.values[x]
    match b.random.randrange(4):
        case 0 if value.ndim > 1:
            b.add(
                "MatMul",
                x,
                b.pick(lambda y: y.dtype == np.float32 and y.ndim > 1 and y.shape[-2] == value.shape[-1] and _broadcast(y[..., 0, 0], value[..., 0, 0])),
            )
        case 1 if value.ndim > 1:
            b.add("MatMul", b.noise(b.size(4), value.shape[-2]), x)
        case 2 if value.ndim > 1:
            turned = b.add("Transpose", x, perm=[*range(value.ndim - 2), value.ndim - 1, value.ndim - 2])
            b.add("MatMul", x, turned)
        case _:
            b.add("MatMul", x, b.noise(value.shape[-1], b.size(6)))


def recurrent(b: OnnxBuilder) -> None:
    x = b.real(3)
    steps, _, features = b.values[x].shape
    if steps > 6:
        raise Unfit
    operator, gates = b.random.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    direction = b.random.choice(["forward", "reverse", "bidirectional"])
    d, h = (2 if direction == "bidirectional" else 1), b.size(3)
    bias = b.noise(d, 2 * gates * h) if b.flag() else None
    extra = {"linear_before_reset": 1} if operator == "GRU" else {}
    b.add(operator, x, b.noise(d, gates * h, features), b.noise(d, gates * h, h), bias, hidden_size=h, direction=direction, outputs=b.size(2), **extra)


# ---- norms ----


def norm(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.float32 and x.ndim >= 2)
    value = b.values[x]
    channels = value.shape[1]
    match b.random.randrange(7):
        case 0 | 1 | 2:
            b.add("BatchNormalization", x, b.noise(channels), b.noise(channels), b.noise(channels), np.abs(b.noise(channels)) + np.float32(0.5), epsilon=1e-3)
        case 3 if value.ndim > 2:
            b.add("InstanceNormalization", x, b.noise(channels), b.noise(channels), epsilon=1e-2)
        case 4 if b.opset >= 17:
            axis = b.axis(value)
            sizes = value.shape[axis:]
            b.add("LayerNormalization", x, b.noise(*sizes), b.noise(*sizes) if b.flag() else None, axis=axis, epsilon=1e-2)
        case 5 if value.ndim == 4:
            b.add("LRN", x, size=b.random.choice([1, 3, 5]), alpha=0.1, beta=0.75, bias=1.5)
        case 6 if b.opset >= 21:
            b.add("GroupNormalization", x, b.noise(channels), b.noise(channels), num_groups=b.divisor(channels), epsilon=1e-2)
        case _:
            shifted = b.add("Add", x, scalar(0.01))
            b.add("LpNormalization", shifted, axis=b.axis(value), p=b.size(2))


# ---- moves ----


def view(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: True)
    value = b.values[x]
    rank = value.ndim
    match b.random.randrange(8):
        case 0 if rank > 1:
            first = b.random.randrange(rank - 1)
            shape = [0] * first + [value.shape[first] * value.shape[first + 1]] + list(value.shape[first + 2 :])
            if b.flag():
                shape[b.random.randrange(len(shape))] = -1
            b.add("Reshape", x, whole(*shape))
        case 1:
            d = b.divisor(value.size)
            b.add("Reshape", x, whole(*b.random.choice([[d, -1], [-1, d], [1, d, -1], [1, -1, d, 1]])))
        case 2 | 3:
            given: dict[str, Any] = {"perm": b.random.sample(range(rank), rank)} if rank and b.random.random() < 0.8 else {}
            b.add("Transpose", x, **given)
        case 4:
            axes = sorted({b.random.randint(0, rank) for _ in range(b.size(2))})
            b.add("Unsqueeze", x, whole(*axes)) if b.opset >= 13 else b.add("Unsqueeze", x, axes=axes)
        case 5:
            axes = [axis for axis in range(rank) if value.shape[axis] == 1 and b.flag()]
            if not axes:
                b.add("Squeeze", x)
            else:
                b.add("Squeeze", x, whole(*axes)) if b.opset >= 13 else b.add("Squeeze", x, axes=axes)
        case 6:
            b.add("Flatten", x, axis=b.random.randint(-rank, rank) if rank else 0)
        case _ if rank == 4:
            n = b.size(2)
            operator = b.random.choice(["DepthToSpace", "SpaceToDepth"])
            modes: dict[str, Any] = {"mode": b.random.choice(["DCR", "CRD"])} if operator == "DepthToSpace" else {}
            b.add(operator, x, blocksize=n, **modes)
        case _:
            b.add("Identity", x)


def spread(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype != np.bool_)
    value = b.values[x]
    if b.flag():
        sizes = [b.size(3) if size == 1 else b.random.choice([1, size]) for size in value.shape]
        b.add("Expand", x, whole(*b.random.choice([[], [2]]), *sizes))
    else:
        b.add("Tile", x, whole(*(b.size(2) for _ in value.shape)))


def part(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.ndim > 0)
    value = b.values[x]
    axis = b.axis(value)
    size = value.shape[axis]
    if b.random.random() < 0.6:
        first = b.random.randrange(-size, size)
        last = b.random.choice([b.random.randint(-size, size), 2**31, 2**63 - 1])
        step = b.random.choice([1, 1, 2, -1, -2])
        if step < 0:
            last = b.random.choice([b.random.randint(-size, size), -(2**31), -(2**63)])
        b.add("Slice", x, whole(first), whole(last), whole(axis), whole(step))
    else:
        if size < 2:
            raise Unfit
        cut = b.random.randrange(1, size)
        if b.opset >= 13:
            b.add("Split", x, whole(cut, size - cut), axis=axis, outputs=2)
        else:
            b.add("Split", x, split=[cut, size - cut], axis=axis, outputs=2)


def concat(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.ndim > 0)
    value = b.values[x]
    axis = b.axis(value)
    d = axis % value.ndim
    alike = lambda y: y.ndim == value.ndim and y.dtype == value.dtype and all(y.shape[i] == value.shape[i] for i in range(y.ndim) if i != d)  # noqa: E731
    b.add("Concat", x, *(b.pick(alike) for _ in range(b.size(2))), axis=axis)


def pad(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.float32 and x.ndim > 0)
    value = b.values[x]
    mode = b.random.choice(["constant", "constant", "reflect", "edge"])
    pads = [b.random.randint(-1 if mode == "constant" else 0, 2) if b.flag() else 0 for _ in range(2 * value.ndim)]
    if mode == "reflect":
        pads = [min(amount, value.shape[place % value.ndim] - 1) for place, amount in enumerate(pads)]
    fill = b.random.choice([None, scalar(0), scalar(1.5)]) if mode == "constant" else None
    b.add("Pad", x, whole(*pads), fill, mode=mode)


# ---- along axes ----


def reduce(b: OnnxBuilder) -> None:
    x = b.real()
    operator = b.random.choice(["Mean", "Mean", "Sum", "Max", "Min", "L1", "L2", "LogSumExp", "SumSquare", "Prod", "LogSum"])
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


# ---- by index ----


def gather(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.ndim > 0)
    value = b.values[x]
    axis = b.axis(value)
    size = value.shape[axis]
    kind = b.random.choice([np.int64, np.int32])
    match b.random.randrange(5):
        case 0 | 1:
            shape = b.random.choice([(), (b.size(4),), (b.size(2), b.size(3))])
            b.add("Gather", x, np.asarray(b.numbers.integers(-size, size, shape), kind), axis=axis)
        case 2:
            shape = [b.size(n) if i == axis % value.ndim else n for i, n in enumerate(value.shape)]
            b.add("GatherElements", x, b.numbers.integers(-size, size, shape).astype(kind), axis=axis)
        case 3:
            depth = b.size(value.ndim)
            index = np.stack([b.numbers.integers(0, n, (2, 2)) for n in value.shape[:depth]], -1)
            b.add("GatherND", x, index)
        case _ if value.dtype == np.float32:
            if b.flag():
                shape = list(value.shape)
                count = shape[axis] = b.size(size)
                places = b.numbers.permutation(size)[:count].reshape([-1 if i == axis % value.ndim else 1 for i in range(value.ndim)])
                b.add("ScatterElements", x, np.broadcast_to(places, shape).astype(kind), b.noise(*shape), axis=axis)
            else:
                count = b.size(value.shape[0])
                b.add("ScatterND", x, b.numbers.permutation(value.shape[0])[:count].reshape(-1, 1).astype(np.int64), b.noise(count, *value.shape[1:]))
        case _:
            raise Unfit


def gather_computed(b: OnnxBuilder) -> None:
    index = b.pick(lambda x: x.dtype in (np.int64, np.int32))
    most = int(b.values[index].max()) + 1
    if int(b.values[index].min()) < 0 or most > 64:
        raise Unfit
    if b.flag():
        b.add("Gather", b.noise(most + b.size(2), b.size(4)), index)
    else:
        b.add("OneHot", index, whole(most + 1), np.array([0, 1], np.float32), axis=b.random.randint(-1, b.values[index].ndim))


# ---- element by element ----

_UNARY: Sequence[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Erf", "Softplus", "Softsign", "HardSwish", "Mish", "Gelu")),
    *(("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 0.7}), ("Selu", {}), ("Celu", {"alpha": 0.7}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4})),
    *(("HardSigmoid", {}), ("Gelu", {"approximate": "tanh"}), ("LeakyRelu", {}), ("Elu", {}), ("Shrink", {"lambd": 0.7, "bias": 0.2})),
]
_POSITIVE = ("Log", "Sqrt", "Reciprocal", "Exp")
_JUMPS = ("Floor", "Ceil", "Round", "Sign")


def unary(b: OnnxBuilder) -> None:
    x = b.real()
    operator, attributes = b.random.choice(_UNARY)
    if (operator == "HardSwish" and b.opset < 14) or (operator == "Gelu" and b.opset < 20) or (operator == "Mish" and b.opset < 18):
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
    b.add("Pow", x, np.array(exponent, b.random.choice([np.float32, np.int64]) if exponent == int(exponent) else np.float32))


def prelu(b: OnnxBuilder) -> None:
    x = b.real(2, 3, 4)
    shape = b.values[x].shape
    slope = b.random.choice([b.noise(1), b.noise(shape[1], *[1] * (len(shape) - 2)), b.noise(*shape[1:]), b.noise(shape[-1])])
    b.add("PRelu", x, slope)


def binary(b: OnnxBuilder) -> None:
    x = b.real()
    value = b.values[x]
    operator = b.random.choice(["Add", "Add", "Sub", "Mul", "Mul", "Max", "Min", "Mean", "Sum"])
    other: str | np.ndarray = _constant(b, value) if b.flag() else b.pick(lambda y: y.dtype == np.float32 and _broadcast(value, y))
    operands = [x, other]
    b.random.shuffle(operands)
    b.add(operator, *operands)


def divide(b: OnnxBuilder) -> None:
    x, y = b.real(), b.real()
    if not _broadcast(b.values[x], b.values[y]):
        raise Unfit
    b.add("Div", x, b.add("Add", b.add("Abs", y), scalar(0.5)))


def compare(b: OnnxBuilder) -> None:
    x = b.real()
    y = b.pick(lambda y: y.dtype == np.float32 and _broadcast(b.values[x], y))
    apart(b.values[x] - b.values[y])
    b.add(b.random.choice(["Greater", "Less", *(["GreaterOrEqual", "LessOrEqual"] if b.opset >= 12 else []), "Equal"]), x, y)


def truth(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.bool_)
    value = b.values[x]
    match b.random.randrange(4):
        case 0:
            b.add("Not", x)
        case 1:
            b.add(b.random.choice(["And", "Or", "Xor"]), x, b.pick(lambda y: y.dtype == np.bool_ and _broadcast(value, y)))
        case 2:
            b.add("Cast", x, to=b.random.choice([1, 6, 7]))
        case _:
            fit = lambda y: y.dtype == np.float32 and _broadcast(value, y)  # noqa: E731
            b.add("Where", x, b.pick(fit), b.random.choice([scalar(0.5), _constant(b, value)]))


def integers(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype in (np.int64, np.int32))
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


STEPS: Sequence[Step] = [
    *(conv, conv, conv, conv, conv_transpose, pool, pool, resize, gemm, matmul, matmul, recurrent, norm, norm, view, view, view, spread, part, part),
    *(concat, concat, pad, reduce, reduce, along, order, gather, gather, gather_computed, unary, unary, positive, jump, jump, clip, power, prelu),
    *(binary, binary, binary, divide, compare, truth, truth, integers, integers, shape_chain),
]
"""What is drawn from; what stands here twice is drawn twice as often."""


def draw(b: OnnxBuilder, steps: Sequence[Step] = STEPS) -> OnnxBuilder:
    """A model of one or two inputs and up to ten nodes or a few more."""
    for _ in range(b.random.choice([1, 1, 2])):
        b.input(b.size(3), b.size(8), b.size(9), b.size(9)) if b.random.random() < 0.8 else b.input(*(b.size(7) for _ in range(b.size(3))))
    wanted, tried = b.size(10), 0
    while len(b.nodes) < wanted and tried < 200:
        tried += 1
        try:
            b.random.choice(steps)(b)
        except Unfit:
            continue
    if not b.nodes:
        b.add("Neg", b.real())
    return b
