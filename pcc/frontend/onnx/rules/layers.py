"""Convolutions, matrix products, recurrent layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, integers, known, rank, shape
from pcc.frontend.onnx.rule import Rule

_aten: Any = torch.ops.aten

_CONVOLUTIONS = {1: _aten.conv1d.default, 2: _aten.conv2d.default, 3: _aten.conv3d.default}
_TRANSPOSED = {1: _aten.conv_transpose1d.default, 2: _aten.conv_transpose2d.input, 3: _aten.conv_transpose3d.input}


def window_pads(
    auto_pad: str, pads: Sequence[int] | None, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """What a sliding window pads before and after each spatial axis, of the four ways to say it."""
    axes = len(kernel)
    match auto_pad:
        case "NOTSET":
            amounts = list(pads) if pads is not None else [0] * (2 * axes)
            if len(amounts) != 2 * axes:
                raise Refused(f"pads={amounts} for {axes} spatial axes")
            return list(zip(amounts[:axes], amounts[axes:], strict=True))
        case "VALID":
            return [(0, 0)] * axes
        case "SAME_UPPER" | "SAME_LOWER":
            total = [
                max(0, (-(-have // step) - 1) * step + (taps - 1) * apart + 1 - have)
                for have, taps, step, apart in zip(size, kernel, stride, dilation, strict=True)
            ]
            upper = auto_pad == "SAME_UPPER"
            return [(amount // 2, amount - amount // 2) if upper else (amount - amount // 2, amount // 2) for amount in total]
    raise Refused(f"auto_pad={auto_pad}")


def pad_list(pads: Sequence[tuple[int, int]]) -> list[int]:
    """As ``aten.pad`` has it: the last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]


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
    axes = rank(x) - 2
    if axes not in _CONVOLUTIONS or rank(weight) != rank(x):
        raise Refused(f"a convolution of {shape(x)} with a weight of {shape(weight)}")
    kernel = shape(weight)[2:]
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise Refused(f"kernel_shape={list(kernel_shape)} of a weight of {shape(weight)}")
    stride, dilation = list(strides or [1] * axes), list(dilations or [1] * axes)
    amounts = window_pads(auto_pad, pads, shape(x)[2:], kernel, stride, dilation)
    even = all(before == after and before >= 0 for before, after in amounts)
    if not even:
        x = emit.call(_aten.constant_pad_nd.default, x, pad_list(amounts), 0.0)
    padding = [before for before, _ in amounts] if even else [0] * axes
    return emit.call(_CONVOLUTIONS[axes], x, weight, bias, stride, padding, dilation, group)


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
    axes = rank(x) - 2
    if axes not in _TRANSPOSED or rank(weight) != rank(x):
        raise Refused(f"a transposed convolution of {shape(x)} with a weight of {shape(weight)}")
    kernel = shape(weight)[2:]
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise Refused(f"kernel_shape={list(kernel_shape)} of a weight of {shape(weight)}")
    stride, dilation = list(strides or [1] * axes), list(dilations or [1] * axes)
    extra = list(output_padding or [0] * axes)
    full = [(have - 1) * s + (taps - 1) * d + 1 + e for have, s, taps, d, e in zip(shape(x)[2:], stride, kernel, dilation, extra, strict=True)]
    if output_shape is not None or auto_pad.startswith("SAME"):
        wanted = list(output_shape)[-axes:] if output_shape is not None else [have * s for have, s in zip(shape(x)[2:], stride, strict=True)]
        total = [have - want for have, want in zip(full, wanted, strict=True)]
        upper = auto_pad == "SAME_UPPER"
        crop = [(amount // 2, amount - amount // 2) if upper else (amount - amount // 2, amount // 2) for amount in total]
    else:
        crop = window_pads(auto_pad, pads, shape(x)[2:], kernel, stride, dilation)
    even = all(before == after and before >= 0 for before, after in crop) and all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
    if even:
        return emit.call(_TRANSPOSED[axes], x, weight, bias, stride, [before for before, _ in crop], extra, group, dilation)
    # Cropping is negative padding; what output_padding adds behind has no taps, only the bias, which comes last then.
    behind = [after - e for (_, after), e in zip(crop, extra, strict=True)]
    late = bias is not None and any(amount < 0 for amount in behind)
    made = emit.call(_TRANSPOSED[axes], x, weight, None if late else bias, stride, [0] * axes, [0] * axes, group, dilation)
    made = emit.call(_aten.constant_pad_nd.default, made, pad_list([(-before, -after) for (before, _), after in zip(crop, behind, strict=True)]), 0.0)
    return emit.call(_aten.add.Tensor, made, emit.call(_aten.reshape.default, bias, [-1, *[1] * axes])) if late else made


def linear(emit: Emitter, x: Value, weight: Value, bias: Value | None) -> Value:
    """``x @ weight + bias`` for a known weight (K, M): the linear layer of its transpose."""
    return emit.call(_aten.linear.default, x, emit.called_like(emit.call(_aten.t.default, weight), weight), bias)


def matmul(emit: Emitter, a: Value, b: Value) -> Value:
    if isinstance(b, Tensor) and rank(b) == 2 and rank(a) > 1 and not isinstance(a, Tensor) and b.is_floating_point():
        return linear(emit, a, b, None)
    return emit.call(_aten.matmul.default, a, b)


def gemm(
    emit: Emitter, a: Value, b: Value, c: Value | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0, broadcast: int = 1
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
        if bias is not None and isinstance(bias, Tensor) and shape(bias) in ((features,), (1, features), (1,), (1, 1), ()):
            # Without its rows the bias of all rows; a single number is one for each feature.
            row = emit.called_like(emit.call(_aten.reshape.default, emit.call(_aten.expand.default, bias, [1, features]), [features]), bias)
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


# ---- recurrent layers ----


def lstm(
    emit: Emitter,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    cell: Value | None = None,
    peephole: Value | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Value, Value, Value]:
    if input_forget or peephole is not None:
        raise Refused("an LSTM with peepholes or a joint input and forget gate")
    _check_activations(activations, ("Sigmoid", "Tanh", "Tanh"), direction)
    return _recurrent(emit, _aten.lstm.input, (0, 2, 3, 1), x, w, r, b, lengths, [hidden, cell], direction, layout)  # type: ignore[return-value]


def gru(
    emit: Emitter,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Value, Value]:
    if not linear_before_reset:
        raise Refused("linear_before_reset=0: pcc has the GRU that applies the reset gate after the product, as PyTorch and cuDNN do")
    _check_activations(activations, ("Sigmoid", "Tanh"), direction)
    return _recurrent(emit, _aten.gru.input, (1, 0, 2), x, w, r, b, lengths, [hidden], direction, layout)  # type: ignore[return-value]


def rnn(
    emit: Emitter,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Value, Value]:
    kinds = {(activation or "").lower() for activation in activations or ("Tanh",)}
    if kinds not in ({"tanh"}, {"relu"}):
        raise Refused(f"activations={list(activations or ())}")
    target = _aten.rnn_tanh.input if kinds == {"tanh"} else _aten.rnn_relu.input
    return _recurrent(emit, target, (0,), x, w, r, b, lengths, [hidden], direction, layout)  # type: ignore[return-value]


def _known(value: Value) -> Tensor:
    tensor = known(value, "a weight of it is")
    assert tensor is not None
    return tensor


def _check_activations(activations: Sequence[str] | None, usual: Sequence[str], direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    if activations is not None and [name.lower() for name in activations] != [name.lower() for name in usual] * count:
        raise Refused(f"activations={list(activations)}")


def _recurrent(
    emit: Emitter,
    target: Any,
    gates: Sequence[int],
    x: Value,
    w: Value,
    r: Value,
    b: Value | None,
    lengths: Value | None,
    states: list[Value | None],
    direction: str,
    layout: int,
) -> tuple[Value, ...]:
    """One layer of PyTorch's, in one direction or two. ``gates[i]`` is the place of PyTorch's i-th gate among ONNX's.

    x (T, N, I), or (N, T, I) with ``layout``; w (D, G*H, I), r (D, G*H, H), b (D, 2*G*H); gives (T, D, N, H) and the last states (D, N, H).
    """
    if direction not in ("forward", "bidirectional", "reverse"):
        raise Refused(f"direction={direction}")
    if layout:
        x = emit.call(_aten.transpose.int, x, 0, 1)
        states = [None if state is None else emit.call(_aten.transpose.int, state, 0, 1) for state in states]
    steps, batch = shape(x)[:2]
    weights, recurrent = _known(w), _known(r)
    directions, hidden = recurrent.shape[0], recurrent.shape[2]
    wanted = integers(lengths, "its sequence lengths are")
    if wanted is not None and set(wanted) != {steps}:
        raise Refused(f"sequence_lens={wanted} of {steps} steps: pcc compiles sequences of one length")
    if direction == "reverse":
        x = emit.call(_aten.flip.default, x, [0])

    def reordered(value: Tensor) -> Tensor:
        return torch.cat([value[gate * hidden : (gate + 1) * hidden] for gate in gates])

    parameters = []
    for number in range(directions):
        parameters += [reordered(weights[number]), reordered(recurrent[number])]
        if b is not None:
            both = _known(b)[number]
            parameters += [reordered(both[: len(gates) * hidden]), reordered(both[len(gates) * hidden :])]
    initial = [torch.zeros(directions, batch, hidden, dtype=dtype(x)) if state is None else state for state in states]
    options = (b is not None, 1, 0.0, False, directions == 2, False)
    results = emit.call(target, x, initial if len(initial) > 1 else initial[0], parameters, *options)
    y = emit.call(_aten.reshape.default, results[0], [steps, batch, directions, hidden])
    if direction == "reverse":
        y = emit.call(_aten.flip.default, y, [0])
    if layout:
        return emit.call(_aten.transpose.int, y, 0, 1), *(emit.call(_aten.transpose.int, state, 0, 1) for state in results[1:])
    return emit.call(_aten.transpose.int, y, 1, 2), *results[1:]


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "LSTM": lstm,
    "GRU": gru,
    "RNN": rnn,
}
