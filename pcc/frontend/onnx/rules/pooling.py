"""Pooling: windows, and whole images."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, integers, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.layers import pad_list, window_pads
from pcc.frontend.onnx.rules.reductions import p_norm
from pcc.ir.ops import POOL2D

_aten: Any = torch.ops.aten

_MAXIMA = {1: _aten.max_pool1d.default, 2: _aten.max_pool2d.default, 3: _aten.max_pool3d.default}
_AVERAGES = {1: _aten.avg_pool1d.default, 2: _aten.avg_pool2d.default, 3: _aten.avg_pool3d.default}


def _axes(x: Value, kernel: Sequence[int]) -> int:
    axes = rank(x) - 2
    if axes not in _MAXIMA or len(kernel) != axes:
        raise Refused(f"a pooling of {shape(x)} with kernel_shape={list(kernel)}")
    return axes


def max_pool(
    emit: Emitter,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Value | tuple[Value, Value]:
    """``storage_order`` is about the places of the maxima."""
    axes = _axes(x, kernel_shape)
    kernel, stride, dilation = list(kernel_shape), list(strides or [1] * axes), list(dilations or [1] * axes)
    amounts = window_pads(auto_pad, pads, shape(x)[2:], kernel, stride, dilation)
    plain = all(before == after and 0 <= 2 * before <= taps for (before, after), taps in zip(amounts, kernel, strict=True))
    if len(emit.used) > 1 and emit.used[1]:
        if not plain or axes > 2 or storage_order:
            raise Refused(f"the places of maxima with pads={pads}, storage_order={storage_order} on {shape(x)}; pcc has them for even pads of images, by rows")
        return _with_places(emit, x, kernel, stride, [before for before, _ in amounts], dilation, bool(ceil_mode))
    if plain:
        return emit.call(_MAXIMA[axes], x, kernel, stride, [before for before, _ in amounts], dilation, bool(ceil_mode))
    return _pool2d(emit, x, "max", kernel, stride, amounts, dilation, bool(ceil_mode), True)


def _with_places(emit: Emitter, x: Value, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], ceil_mode: bool) -> tuple[Value, Value]:
    """The maxima, and their places in the whole tensor."""
    row = len(kernel) == 1
    image = emit.call(_aten.unsqueeze.default, x, 2) if row else x
    settings = [[neutral, *values] if row else values for values, neutral in ((kernel, 1), (stride, 1), (pads, 0), (dilation, 1))]
    values, places = emit.call(_aten.max_pool2d_with_indices.default, image, *settings, ceil_mode)
    if prod(shape(x)) > 1 << 24:
        raise Refused(f"places among {prod(shape(x))} elements: fp32 numbers them up to {1 << 24}")
    planes = shape(image)[0] * shape(image)[1]
    first = (torch.arange(planes) * prod(shape(image)[2:])).reshape(*shape(image)[:2], 1, 1)
    places = emit.call(_aten.add.Tensor, places, first)
    return (emit.call(_aten.squeeze.dim, values, 2), emit.call(_aten.squeeze.dim, places, 2)) if row else (values, places)


def max_unpool(
    emit: Emitter,
    x: Value,
    places: Value,
    sizes: Value | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Values at their places in the tensor that was pooled, zeros elsewhere; then room behind, where a larger output is asked for."""
    axes = _axes(x, kernel_shape)
    steps, sides = list(strides or [1] * axes), list(pads or [0] * (2 * axes))
    pooled = [
        (have - 1) * step + taps - sides[axis] - sides[axis + axes]
        for axis, (have, step, taps) in enumerate(zip(shape(x)[2:], steps, kernel_shape, strict=True))
    ]
    whole = [*shape(x)[:2], *pooled]
    flat, values = (emit.call(_aten.reshape.default, value, [-1]) for value in (places, x))
    made = emit.call(_aten.scatter.src, torch.zeros(prod(whole), dtype=dtype(x)), 0, flat, values)
    made = emit.call(_aten.reshape.default, made, whole)
    wanted = integers(sizes, "its output shape is") or whole
    if any(want < have for want, have in zip(wanted, whole, strict=True)):
        raise Refused(f"output_shape={wanted} of places in {whole}")
    room = [(0, want - have) for want, have in zip(wanted, whole, strict=True)]
    return emit.call(_aten.constant_pad_nd.default, made, pad_list(room), 0.0) if wanted != whole else made


def average_pool(
    emit: Emitter,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    axes = _axes(x, kernel_shape)
    if any(apart != 1 for apart in dilations or ()):
        raise Refused(f"dilations={list(dilations or ())}")
    kernel, stride = list(kernel_shape), list(strides or [1] * axes)
    amounts = window_pads(auto_pad, pads, shape(x)[2:], kernel, stride, [1] * axes)
    if all(before == after and 0 <= 2 * before <= taps for (before, after), taps in zip(amounts, kernel, strict=True)):
        return emit.call(_AVERAGES[axes], x, kernel, stride, [before for before, _ in amounts], bool(ceil_mode), bool(count_include_pad))
    return _pool2d(emit, x, "avg", kernel, stride, amounts, [1] * axes, bool(ceil_mode), bool(count_include_pad))


def _pool2d(
    emit: Emitter,
    x: Value,
    mode: str,
    kernel: list[int],
    stride: list[int],
    pads: list[tuple[int, int]],
    dilation: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Value:
    """Padding that PyTorch's poolings do not have: uneven, or more than half a window. pcc's own pooling has it, over two axes."""
    axes = len(kernel)
    if axes > 2 or any(amount < 0 for pair in pads for amount in pair):
        raise Refused(f"pads={[amount for pair in zip(*pads, strict=True) for amount in pair]}")
    if axes == 1:
        x = emit.call(_aten.unsqueeze.default, x, 2)
        kernel, stride, dilation, pads = [1, *kernel], [1, *stride], [1, *dilation], [(0, 0), *pads]
    (top, bottom), (left, right) = pads
    made = emit.call(POOL2D, x, mode, kernel, stride, [top, left, bottom, right], dilation, ceil_mode, count_include_pad)
    return emit.call(_aten.squeeze.dim, made, 2) if axes == 1 else made


def lp_pool(
    emit: Emitter,
    x: Value,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """The p-norm of each window: the root of its sum of powers, an average times its size."""
    powers = emit.call(_aten.pow.Tensor_Scalar, emit.call(_aten.abs.default, x), p)
    options: dict[str, Any] = {"auto_pad": auto_pad, "ceil_mode": ceil_mode, "dilations": dilations, "pads": pads, "strides": strides}
    if ceil_mode:
        raise Refused("ceil_mode=1")
    means = average_pool(emit, powers, kernel_shape=kernel_shape, count_include_pad=1, **options)
    return emit.call(_aten.pow.Tensor_Scalar, emit.call(_aten.mul.Tensor, means, float(prod(kernel_shape))), 1 / p)


def _image_axes(x: Value) -> list[int]:
    if rank(x) < 3:
        raise Refused(f"a pooling of {shape(x)}, which has no spatial axes")
    return list(range(2, rank(x)))


def global_average(emit: Emitter, x: Value) -> Value:
    return emit.call(_aten.mean.dim, x, _image_axes(x), True)


def global_maximum(emit: Emitter, x: Value) -> Value:
    return emit.call(_aten.amax.default, x, _image_axes(x), True)


def global_lp(emit: Emitter, x: Value, *, p: int = 2) -> Value:
    return p_norm(emit, x, p, _image_axes(x), True)


RULES: dict[str, Rule] = {
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_maximum,
    "GlobalLpPool": global_lp,
}
