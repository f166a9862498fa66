"""Normalisation: batch, instance, layer, group, RMS, local response, by norms."""

from collections.abc import Sequence
from typing import Any

import torch

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.arithmetic import convert
from pcc.frontend.onnx.rules.reductions import p_norm

_aten: Any = torch.ops.aten


def batch_norm(
    emit: Emitter,
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
    is_test: int = 1,
) -> Value:
    """``spatial`` and ``is_test`` are of old opsets. ONNX's momentum is what stays of the old statistics, PyTorch's
    what comes in. Before opset 14 a node is in training mode if it has outputs for statistics, read or not."""
    if training_mode or (emit.opset < 14 and any(emit.named[1:])):
        raise Refused("batch norm in training mode: export the model in evaluation mode")
    if not spatial and rank(x) > 2:
        raise Refused("spatial=0")
    return emit.call(_aten.batch_norm.default, x, scale, bias, mean, variance, False, 1 - momentum, epsilon, False)


def instance_norm(emit: Emitter, x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5) -> Value:
    return emit.call(_aten.instance_norm.default, x, scale, bias, None, None, True, 0.1, epsilon, False)


def layer_norm(
    emit: Emitter,
    x: Value,
    scale: Value | None,
    bias: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> list[Value]:
    """Over all dimensions from ``axis`` on. ``stash_type`` says in which type statistics are computed; fp32 is what
    PyTorch does."""
    if stash_type != 1:
        raise Refused(f"stash_type={stash_type}")
    axis %= rank(x)
    dims = list(range(axis, rank(x)))
    sizes = list(shape(x)[axis:])
    result = emit.call(
        _aten.layer_norm.default, x, sizes, _whole(emit, scale, sizes), _whole(emit, bias, sizes), epsilon, False
    )
    if not any(emit.used[1:]):
        return [result]
    mean = emit.call(_aten.mean.dim, x, dims, True)
    centred = emit.call(_aten.sub.Tensor, x, mean)
    variance = emit.call(_aten.mean.dim, emit.call(_aten.mul.Tensor, centred, centred), dims, True)
    return [result, mean, emit.call(_aten.rsqrt.default, emit.call(_aten.add.Tensor, variance, epsilon))]


def _whole(emit: Emitter, value: Value | None, sizes: list[int]) -> Value | None:
    """A scale or bias of the normalised shape, to which ONNX lets it broadcast."""
    if value is None or list(shape(value)) == sizes:
        return value
    return emit.called_like(emit.call(_aten.clone.default, emit.call(_aten.expand.default, value, sizes)), value)


def group_norm(
    emit: Emitter, x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Value:
    """Scale and bias belong to groups before opset 21, to channels since."""
    if stash_type != 1:
        raise Refused(f"stash_type={stash_type}")
    channels = shape(x)[1]
    if emit.opset < 21 and num_groups != channels:
        scale, bias = (
            emit.called_like(emit.call(_aten.repeat_interleave.self_int, value, channels // num_groups), value)
            for value in (scale, bias)
        )
    return emit.call(_aten.group_norm.default, x, num_groups, scale, bias, epsilon, False)


def rms_norm(
    emit: Emitter, x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    """Divided by the root of the mean of squares over all dimensions from ``axis`` on."""
    if stash_type != 1:
        raise Refused(f"stash_type={stash_type}")
    wide = convert(emit, x, torch.float32)
    squares = emit.call(
        _aten.mean.dim, emit.call(_aten.mul.Tensor, wide, wide), list(range(axis % rank(x), rank(x))), True
    )
    normal = emit.call(
        _aten.mul.Tensor, wide, emit.call(_aten.rsqrt.default, emit.call(_aten.add.Tensor, squares, epsilon))
    )
    return emit.call(_aten.mul.Tensor, convert(emit, normal, dtype(x)), scale)


def local_response(
    emit: Emitter, x: Value, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Value:
    """Divided by a power of the squares of neighbouring channels, whose sum is a 1x1 convolution with a band of
    ones."""
    if rank(x) != 4:
        raise Refused(f"an input of {shape(x)}; pcc has it for NCHW")
    channels = shape(x)[1]
    place = torch.arange(channels)
    distance = place[None] - place[:, None]
    band = (distance >= -((size - 1) // 2)) & (distance <= size // 2)
    weight = emit.called((band * (alpha / size)).to(dtype(x)).reshape(channels, channels, 1, 1), f"{emit.name}.window")
    squares = emit.call(_aten.mul.Tensor, x, x)
    total = emit.call(_aten.conv2d.default, squares, weight, torch.full((channels,), bias, dtype=dtype(x)))
    return emit.call(_aten.mul.Tensor, x, emit.call(_aten.pow.Tensor_Scalar, total, -beta))


def lp_norm(emit: Emitter, x: Value, *, axis: int = -1, p: int = 2) -> Value:
    """Divided by the norm along an axis; where that is zero, zero."""
    norm = p_norm(emit, x, p, [axis % rank(x)], True)
    return emit.call(_aten.div.Tensor, x, emit.call(_aten.clamp.default, norm, torch.finfo(dtype(x)).tiny))


def mean_variance(emit: Emitter, x: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """``(x - mean) / (deviation + 1e-9)``, as the specification's function body has it."""
    dims = [axis % rank(x) for axis in axes]
    centred = emit.call(_aten.sub.Tensor, x, emit.call(_aten.mean.dim, x, dims, True))
    variance = emit.call(_aten.mean.dim, emit.call(_aten.mul.Tensor, centred, centred), dims, True)
    return emit.call(
        _aten.div.Tensor, centred, emit.call(_aten.add.Tensor, emit.call(_aten.sqrt.default, variance), 1e-9)
    )


RULES: dict[str, Rule] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "RMSNormalization": rms_norm,
    "LRN": local_response,
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance,
}
