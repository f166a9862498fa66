"""Element by element: arithmetic, comparisons, logic, activations, conversions."""

from functools import reduce
from math import isclose
from typing import Any

import torch

from pcc.frontend.onnx.data_types import torch_type
from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, known, number, rank, shape
from pcc.frontend.onnx.rule import Rule

_aten: Any = torch.ops.aten


def scalar(value: Value, other: Value) -> Value | float:
    """A known operand of one element as a number, where the result has the other's shape and type all the same."""
    if (
        isinstance(value, torch.Tensor)
        and value.numel() == 1
        and rank(value) <= rank(other)
        and value.dtype == dtype(other)
        and not value.is_complex()
    ):
        return value.item()
    return value


def _binary(name: str) -> Rule:
    """An operator that ATen has of two tensors, and of a tensor and a number."""
    packet = getattr(_aten, name)

    def rule(emit: Emitter, a: Value, b: Value) -> Value:
        second = scalar(b, a)
        return emit.call(
            packet.Tensor if isinstance(second, torch.Tensor | torch.fx.Node) else packet.Scalar, a, second
        )

    return rule


def _logical(name: str) -> Rule:
    target = getattr(_aten, name).default

    def rule(emit: Emitter, a: Value, b: Value) -> Value:
        return emit.call(target, a, b)

    return rule


def _unary(target: Any) -> Rule:
    def rule(emit: Emitter, x: Value) -> Value:
        return emit.call(target, x)

    return rule


def _variadic(target: Any) -> Rule:
    def rule(emit: Emitter, first: Value, *others: Value) -> Value:
        return reduce(lambda a, b: emit.call(target, a, b), others, first)

    return rule


def _mean(emit: Emitter, *values: Value) -> Value:
    return emit.call(
        _aten.div.Tensor, reduce(lambda a, b: emit.call(_aten.add.Tensor, a, b), values), float(len(values))
    )


def convert(emit: Emitter, x: Value, to: torch.dtype) -> Value:
    """The value in another type; itself where it has that."""
    return x if dtype(x) == to else emit.call(_aten._to_copy.default, x, dtype=to)


def _div(emit: Emitter, a: Value, b: Value) -> Value:
    """Of integers, the quotient towards zero."""
    if dtype(a).is_floating_point:
        return emit.call(_aten.div.Tensor, a, scalar(b, a))
    return emit.call(_aten.div.Tensor_mode, a, b, rounding_mode="trunc")


def _mod(emit: Emitter, a: Value, b: Value, *, fmod: int = 0) -> Value:
    return emit.call(_aten.fmod.Tensor if fmod else _aten.remainder.Tensor, a, b)


def _pow(emit: Emitter, base: Value, exponent: Value) -> Value:
    """In the base's type, whatever the exponent's."""
    if (
        isinstance(exponent, torch.Tensor)
        and exponent.numel() == 1
        and rank(exponent) <= rank(base)
        and dtype(base).is_floating_point
    ):
        return emit.call(_aten.pow.Tensor_Scalar, base, exponent.item())
    return convert(emit, emit.call(_aten.pow.Tensor_Tensor, base, exponent), dtype(base))


def _clip(
    emit: Emitter,
    x: Value,
    low: Value | None = None,
    high: Value | None = None,
    *,
    min: float | None = None,
    max: float | None = None,
) -> Value:
    """Bounds are attributes up to opset 10, inputs since."""
    bounds = [attribute if bound is None else scalar(bound, x) for bound, attribute in ((low, min), (high, max))]
    if bounds == [None, None]:
        return x
    if any(isinstance(bound, torch.Tensor | torch.fx.Node) for bound in bounds):
        for target, bound in ((_aten.maximum.default, bounds[0]), (_aten.minimum.default, bounds[1])):
            if bound is not None:
                x = emit.call(
                    target,
                    x,
                    bound if isinstance(bound, torch.Tensor | torch.fx.Node) else torch.tensor(bound, dtype=dtype(x)),
                )
        return x
    return emit.call(_aten.clamp.default, x, *bounds)


def _cast(emit: Emitter, x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    """``saturate`` and ``round_mode`` are about 8-bit floats, which `torch_type` refuses."""
    return convert(emit, x, torch_type(to))


def _cast_like(emit: Emitter, x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return convert(emit, x, dtype(like))


def _leaky_relu(emit: Emitter, x: Value, *, alpha: float = 0.01) -> Value:
    return emit.call(_aten.leaky_relu.default, x, alpha)


def _prelu(emit: Emitter, x: Value, slope: Value) -> Value:
    """The slope broadcasts to the input from the right: one number, or one for each channel, or any."""
    sizes = shape(slope)
    if slope_count(sizes) == 1:
        return emit.call(_aten.prelu.default, x, emit.called_like(emit.call(_aten.reshape.default, slope, [1]), slope))
    channels = 1 - rank(x)
    if rank(x) > 2 and len(sizes) == rank(x) - 1 and sizes[0] == shape(x)[channels] == slope_count(sizes):
        return emit.call(
            _aten.prelu.default, x, emit.called_like(emit.call(_aten.reshape.default, slope, [sizes[0]]), slope)
        )
    negative = emit.call(_aten.mul.Tensor, emit.call(_aten.clamp.default, x, None, 0), slope)
    return emit.call(_aten.add.Tensor, emit.call(_aten.relu.default, x), negative)


def slope_count(sizes: tuple[int, ...]) -> int:
    return int(torch.Size(sizes).numel())


def _elu(emit: Emitter, x: Value, *, alpha: float = 1.0) -> Value:
    return emit.call(_aten.elu.default, x, alpha)


def _selu(
    emit: Emitter, x: Value, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Value:
    return emit.call(_aten.elu.default, x, alpha, gamma)


def _celu(emit: Emitter, x: Value, *, alpha: float = 1.0) -> Value:
    return emit.call(_aten.celu.default, x, alpha)


def _thresholded_relu(emit: Emitter, x: Value, *, alpha: float = 1.0) -> Value:
    return emit.call(_aten.threshold.default, x, alpha, 0.0)


def _hard_sigmoid(emit: Emitter, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    if isclose(alpha, 1 / 6, rel_tol=1e-4) and beta == 0.5:
        return emit.call(_aten.hardsigmoid.default, x)
    return emit.call(
        _aten.clamp.default, emit.call(_aten.add.Tensor, emit.call(_aten.mul.Tensor, x, alpha), beta), 0.0, 1.0
    )


def _gelu(emit: Emitter, x: Value, *, approximate: str = "none") -> Value:
    return emit.call(_aten.gelu.default, x, approximate=approximate)


def _softsign(emit: Emitter, x: Value) -> Value:
    return emit.call(_aten.div.Tensor, x, emit.call(_aten.add.Tensor, emit.call(_aten.abs.default, x), 1.0))


def _swish(emit: Emitter, x: Value, *, alpha: float = 1.0) -> Value:
    if alpha == 1:
        return emit.call(_aten.silu.default, x)
    return emit.call(_aten.mul.Tensor, x, emit.call(_aten.sigmoid.default, emit.call(_aten.mul.Tensor, x, alpha)))


def _shrink(emit: Emitter, x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    """What lies beyond ``lambd`` on either side, moved towards zero by ``bias``; else zero."""
    zero = torch.zeros((), dtype=dtype(x))
    above = emit.call(
        _aten.where.self,
        emit.call(_aten.gt.Scalar, x, lambd),
        convert(emit, emit.call(_aten.sub.Tensor, x, bias), dtype(x)),
        zero,
    )
    return emit.call(
        _aten.where.self,
        emit.call(_aten.lt.Scalar, x, -lambd),
        convert(emit, emit.call(_aten.add.Tensor, x, bias), dtype(x)),
        above,
    )


def _is_inf(emit: Emitter, x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    signs = [float(sign) for sign, wanted in (("-inf", detect_negative), ("inf", detect_positive)) if wanted]
    if len(signs) == 2:
        return emit.call(_aten.isinf.default, x)
    return emit.call(_aten.eq.Scalar, x, signs[0]) if signs else torch.zeros(shape(x), dtype=torch.bool)


def _bit_shift(emit: Emitter, x: Value, by: Value, *, direction: str) -> Value:
    return emit.call(_aten.__lshift__.Tensor if direction == "LEFT" else _aten.__rshift__.Tensor, x, by)


def _dequantize(
    emit: Emitter,
    x: Value,
    scale: Value,
    zero: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Value:
    """Of weights that are stored as integers: they come in as fp32. There is one scale, or one for each place of the
    axis, or for each ``block_size`` places."""
    if not isinstance(x, torch.Tensor):
        raise Refused(
            "the network computes with quantised values; pcc compiles fp32 models: export it before it is quantised"
        )
    if output_dtype:
        raise Refused(f"output_dtype={output_dtype}")
    scale_value = known(scale, "its scale is")
    assert scale_value is not None

    blocks = [
        -(-size // block_size) if block_size and place == axis % rank(x) else size
        for place, size in enumerate(shape(x))
    ]

    def along(value: torch.Tensor) -> torch.Tensor:
        if block_size:
            if list(value.shape) != blocks:
                raise Refused(f"scales of {shape(value)} for blocks of {block_size} of {shape(x)} along axis {axis}")
            return value.repeat_interleave(block_size, axis).narrow(axis, 0, shape(x)[axis])
        return (
            value.reshape([-1 if place == axis % rank(x) else 1 for place in range(rank(x))])
            if value.numel() > 1
            else value.reshape(())
        )

    offset = known(zero, "its zero point is")
    shifted = x.to(scale_value.dtype) - (along(offset).to(scale_value.dtype) if offset is not None else 0)
    return emit.called_like(shifted * along(scale_value), x)


def _where(emit: Emitter, condition: Value, a: Value, b: Value) -> Value:
    return emit.call(_aten.where.self, condition, a, b)


def _dropout(
    emit: Emitter,
    x: Value,
    rate: Value | None = None,
    training: Value | None = None,
    *,
    ratio: float = 0.5,
    seed: int = 0,
) -> tuple[Value, Value]:
    """In inference, nothing; rate and seed belong to training. The rate is an attribute up to opset 11, the mask of the
    input's type up to opset 9."""
    if training is not None and number(training, "its training mode is"):
        raise Refused("dropout in training mode: export the model in evaluation mode")
    return x, torch.ones(shape(x), dtype=torch.bool if emit.opset >= 10 else dtype(x))


RULES: dict[str, Rule] = {
    **{word: _binary(word.lower()) for word in ("Add", "Sub", "Mul")},
    **{
        name: _binary(op)
        for name, op in {
            "Equal": "eq",
            "Greater": "gt",
            "GreaterOrEqual": "ge",
            "Less": "lt",
            "LessOrEqual": "le",
        }.items()
    },
    **{f"Bitwise{word}": _binary(f"bitwise_{word.lower()}") for word in ("And", "Or", "Xor")},
    **{word: _logical(f"logical_{word.lower()}") for word in ("And", "Or", "Xor")},
    **{
        name: _variadic(target)
        for name, target in {
            "Sum": _aten.add.Tensor,
            "Max": _aten.maximum.default,
            "Min": _aten.minimum.default,
        }.items()
    },
    **{
        name: _unary(getattr(_aten, op).default)
        for name, op in {
            **{
                word: word.lower()
                for word in ("Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sign", "Floor", "Ceil", "Round", "Erf")
            },
            **{
                word: word.lower()
                for word in (
                    "Sin",
                    "Cos",
                    "Tan",
                    "Asin",
                    "Acos",
                    "Atan",
                    "Sinh",
                    "Cosh",
                    "Tanh",
                    "Asinh",
                    "Acosh",
                    "Atanh",
                )
            },
            **{word: word.lower() for word in ("Relu", "Sigmoid", "HardSwish", "Softplus", "Mish", "IsNaN")},
            "BitwiseNot": "bitwise_not",
            "Not": "logical_not",
        }.items()
    },
    "Mean": _mean,
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Clip": _clip,
    "Cast": _cast,
    "CastLike": _cast_like,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "ThresholdedRelu": _thresholded_relu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softsign": _softsign,
    "Swish": _swish,
    "Shrink": _shrink,
    "IsInf": _is_inf,
    "BitShift": _bit_shift,
    "Where": _where,
    "DequantizeLinear": _dequantize,
    "Dropout": _dropout,
}
