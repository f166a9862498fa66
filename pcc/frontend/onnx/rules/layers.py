"""Convolutions and matrix products."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.windows import kernel_of, pad_list, split, window

_aten: Any = torch.ops.aten

_CONVOLUTIONS = {1: _aten.conv1d.default, 2: _aten.conv2d.default, 3: _aten.conv3d.default}
_TRANSPOSED = {1: _aten.conv_transpose1d.default, 2: _aten.conv_transpose2d.input, 3: _aten.conv_transpose3d.input}


def conv(
    emit: Emitter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    w = window(x, kernel_of(weight, kernel_shape, x), strides, dilations, auto_pad, pads)
    if not w.is_even:
        x = emit.call(_aten.constant_pad_nd.default, x, pad_list(w.pads), 0.0)
    return emit.call(
        _CONVOLUTIONS[w.axes], x, weight, bias, w.stride, w.before if w.is_even else [0] * w.axes, w.dilation, group
    )


def conv_transpose(
    emit: Emitter,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    same = output_shape is not None or auto_pad.startswith("SAME")
    w = window(x, kernel_of(weight, kernel_shape, x), strides, dilations, "VALID" if same else auto_pad, pads)
    axes, stride, dilation, crop = w.axes, w.stride, w.dilation, w.pads
    extra = list(output_padding or [0] * axes)
    if same:
        wanted = (
            list(output_shape)[-axes:]
            if output_shape is not None
            else [have * s for have, s in zip(shape(x)[2:], stride, strict=True)]
        )
        full = [
            (have - 1) * s + (taps - 1) * d + 1 + e
            for have, s, taps, d, e in zip(shape(x)[2:], stride, w.kernel, dilation, extra, strict=True)
        ]
        # What is missing comes behind.
        amounts = [have - want for have, want in zip(full, wanted, strict=True)]
        crop = [split(amount, auto_pad) if amount > 0 else (0, amount) for amount in amounts]
    even = all(before == after and before >= 0 for before, after in crop) and all(
        e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)
    )
    if even:
        return emit.call(
            _TRANSPOSED[axes], x, weight, bias, stride, [before for before, _ in crop], extra, group, dilation
        )
    # Cropping is negative padding; what output_padding adds behind has no taps, only the bias, which comes last then.
    behind = [after - e for (_, after), e in zip(crop, extra, strict=True)]
    late = bias is not None and any(amount < 0 for amount in behind)
    result = emit.call(
        _TRANSPOSED[axes], x, weight, None if late else bias, stride, [0] * axes, [0] * axes, group, dilation
    )
    result = emit.call(
        _aten.constant_pad_nd.default,
        result,
        pad_list([(-before, -after) for (before, _), after in zip(crop, behind, strict=True)]),
        0.0,
    )
    return (
        emit.call(_aten.add.Tensor, result, emit.call(_aten.reshape.default, bias, [-1, *[1] * axes]))
        if late
        else result
    )


def linear(emit: Emitter, x: Value, weight: Value, bias: Value | None) -> Value:
    """``x @ weight + bias`` for a known weight (K, M): the linear layer of its transpose."""
    return emit.call(_aten.linear.default, x, emit.called_like(emit.call(_aten.t.default, weight), weight), bias)


def matmul(emit: Emitter, a: Value, b: Value) -> Value:
    if isinstance(b, Tensor) and rank(b) == 2 and rank(a) > 1 and not isinstance(a, Tensor) and b.is_floating_point():
        return linear(emit, a, b, None)
    return emit.call(_aten.matmul.default, a, b)


def gemm(
    emit: Emitter,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 1,
) -> Value:
    """``alpha * a @ b + beta * c``. ``broadcast`` is of opset 6, where it says what is always so since."""
    if rank(a) != 2 or rank(b) != 2:
        raise Refused(f"a product of {shape(a)} and {shape(b)}, which are no matrices")
    if transA:
        a = emit.call(_aten.t.default, a)
    if isinstance(b, Tensor) and not isinstance(a, Tensor) and dtype(b).is_floating_point:
        weight = b if transB else emit.called_like(emit.call(_aten.t.default, b), b)
        if alpha != 1:
            weight = emit.called_like(emit.call(_aten.mul.Tensor, weight, alpha), b)
        bias = c
        if bias is not None and beta != 1:
            bias = emit.called_like(emit.call(_aten.mul.Tensor, bias, beta), bias)
        features = shape(weight)[0]
        if (
            bias is not None
            and isinstance(bias, Tensor)
            and shape(bias) in ((features,), (1, features), (1,), (1, 1), ())
        ):
            # Without its rows the bias of all rows; a single number is one for each feature.
            row = emit.called_like(
                emit.call(_aten.reshape.default, emit.call(_aten.expand.default, bias, [1, features]), [features]), bias
            )
            return emit.call(_aten.linear.default, a, weight, bias if shape(bias) == (features,) else row)
        product = emit.call(_aten.linear.default, a, weight, None)
        return product if bias is None else emit.call(_aten.add.Tensor, product, bias)
    product = emit.call(_aten.mm.default, a, emit.call(_aten.t.default, b) if transB else b)
    if alpha != 1:
        product = _scaled(emit, product, alpha)
    if c is None:
        return product
    return emit.call(_aten.add.Tensor, product, c if beta == 1 else _scaled(emit, c, beta))


def _scaled(emit: Emitter, x: Value, factor: float) -> Value:
    if not dtype(x).is_floating_point and factor != int(factor):
        raise Refused(f"integers multiplied by {factor}")
    return emit.call(_aten.mul.Tensor, x, factor if dtype(x).is_floating_point else int(factor))


def einsum(emit: Emitter, *operands: Value, equation: str) -> Value:
    return emit.call(_aten.einsum.default, equation, list(operands))


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
}
