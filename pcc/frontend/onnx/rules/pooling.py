"""Pooling: windows, and whole images."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, dtype, integers, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.reductions import p_norm
from pcc.frontend.onnx.rules.windows import Window, pad_list, window
from pcc.ir.ops import POOL2D

_aten: Any = torch.ops.aten

_MAXIMA = {1: _aten.max_pool1d.default, 2: _aten.max_pool2d.default, 3: _aten.max_pool3d.default}
_AVERAGES = {1: _aten.avg_pool1d.default, 2: _aten.avg_pool2d.default, 3: _aten.avg_pool3d.default}


def _is_plain(w: Window) -> bool:
    """Whether PyTorch's poolings have such padding: even, and half a window at most."""
    return w.is_even and all(2 * before <= taps for before, taps in zip(w.before, w.kernel, strict=True))


def _pooling_window(
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    pads: Sequence[int] | None,
) -> Window:
    """The window of a pooling. `Refused` where ``auto_pad`` means another first element to ONNX Runtime, which takes
    steps that are longer than windows for negative padding, than to others."""
    w = window(x, kernel, strides, dilations, auto_pad, pads)
    if auto_pad.startswith("SAME"):
        for have, taps, step, apart in zip(shape(x)[2:], w.kernel, w.stride, w.dilation, strict=True):
            missing = have - ((-(-have // step) - 1) * step + (taps - 1) * apart + 1)
            if missing >= (2 if auto_pad == "SAME_UPPER" else 3):
                raise Refused(f"auto_pad={auto_pad} of windows of {taps} with steps of {step} over {have} elements")
    return w


def _as_image(w: Window) -> Window:
    """A window over a row, over an image of one row."""
    return Window([1, *w.kernel], [1, *w.stride], [1, *w.dilation], [(0, 0), *w.pads])


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
    w = _pooling_window(x, kernel_shape, strides, dilations, auto_pad, pads)
    if len(emit.used) > 1 and emit.used[1]:
        values, places = _with_places(emit, x, w, bool(ceil_mode), bool(storage_order))
        emit.numbered[places] = shape(x)
        return values, places
    if _is_plain(w):
        return emit.call(_MAXIMA[w.axes], x, w.kernel, w.stride, w.before, w.dilation, bool(ceil_mode))
    return _pool2d(emit, x, "max", w, bool(ceil_mode), True)


def _with_places(emit: Emitter, x: Value, w: Window, ceil_mode: bool, by_columns: bool) -> tuple[Value, Value]:
    """The maxima, and their places in the whole tensor; ``by_columns`` numbers the elements of an image column by
    column."""
    if w.axes > 2:
        raise Refused("pooling of volumes; pcc pools images")
    if prod(shape(x)) > 1 << 24:
        raise Refused(f"places among {prod(shape(x))} elements: fp32 numbers them up to {1 << 24}")
    row = w.axes == 1
    if row:
        x, w = emit.call(_aten.unsqueeze.default, x, 2), _as_image(w)
    images, channels, height, width = shape(x)
    plain = _is_plain(w)
    padded = x if plain else emit.call(_aten.constant_pad_nd.default, x, pad_list(w.pads), float("-inf"))
    pads = w.before if plain else [0, 0]
    values, places = emit.call(
        _aten.max_pool2d_with_indices.default, padded, w.kernel, w.stride, pads, w.dilation, ceil_mode
    )
    if not plain and ceil_mode:  # PyTorch keeps windows that begin in the padding behind, which is input to it
        for axis, (size, step, before) in enumerate(zip((height, width), w.stride, w.before, strict=True), 2):
            count = min(shape(values)[axis], -(-(size + before) // step))
            values, places = (emit.call(_aten.slice.Tensor, part, axis, 0, count) for part in (values, places))
    if not plain or by_columns:
        line = shape(padded)[3]
        down = emit.call(_aten.div.Tensor_mode, places, line, rounding_mode="floor")
        right = emit.call(_aten.sub.Tensor, places, emit.call(_aten.mul.Tensor, down, line))
        if not plain:
            down, right = (
                emit.call(_aten.sub.Tensor, part, before) for part, before in zip((down, right), w.before, strict=True)
            )
        first, second, line = (right, down, height) if by_columns else (down, right, width)
        places = emit.call(_aten.add.Tensor, emit.call(_aten.mul.Tensor, first, line), second)
    starts = (torch.arange(images * channels) * (height * width)).reshape(images, channels, 1, 1)
    places = emit.call(_aten.add.Tensor, places, starts)
    return (
        (emit.call(_aten.squeeze.dim, values, 2), emit.call(_aten.squeeze.dim, places, 2)) if row else (values, places)
    )


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
    """Values at their places in the tensor that was pooled, zeros elsewhere. Its shape is the output's where a pooling
    of the model says so; else what the window makes of the input's, with room behind where a larger output is asked
    for."""
    w = window(x, kernel_shape, strides, None, pads=pads)
    pooled = [
        (have - 1) * step + taps - sum(sides)
        for have, step, taps, sides in zip(shape(x)[2:], w.stride, w.kernel, w.pads, strict=True)
    ]
    whole = [*shape(x)[:2], *pooled]
    wanted = integers(sizes, "its output shape is") or whole
    numbered = list(emit.numbered.get(places, whole))
    if numbered not in (whole, wanted):
        raise Refused(f"places in a tensor of {numbered} for an output of {wanted}")
    whole = numbered
    if isinstance(places, Tensor) and bool(((places < 0) | (places >= prod(whole))).any()):
        raise Refused(f"places outside of a tensor of {whole}")
    flat, values = (emit.call(_aten.reshape.default, value, [-1]) for value in (places, x))
    result = emit.call(_aten.scatter.src, torch.zeros(prod(whole), dtype=dtype(x)), 0, flat, values)
    result = emit.call(_aten.reshape.default, result, whole)
    if any(want < have for want, have in zip(wanted, whole, strict=True)):
        raise Refused(f"output_shape={wanted} of places in {whole}")
    room = [(0, want - have) for want, have in zip(wanted, whole, strict=True)]
    return emit.call(_aten.constant_pad_nd.default, result, pad_list(room), 0.0) if wanted != whole else result


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
    w = _pooling_window(x, kernel_shape, strides, dilations, auto_pad, pads)
    if _is_plain(w) and w.dilation == [1] * w.axes:
        return emit.call(_AVERAGES[w.axes], x, w.kernel, w.stride, w.before, bool(ceil_mode), bool(count_include_pad))
    return _pool2d(emit, x, "avg", w, bool(ceil_mode), bool(count_include_pad))


def _pool2d(emit: Emitter, x: Value, mode: str, w: Window, ceil_mode: bool, count_include_pad: bool) -> Value:
    """What PyTorch's poolings do not have: padding that is uneven or more than half a window, averages with dilation.
    pcc's own has it, over two axes."""
    if w.axes > 2:
        raise Refused("pooling of volumes; pcc pools images")
    if any(amount < 0 for pair in w.pads for amount in pair):
        raise Refused(f"pads={[amount for pair in zip(*w.pads, strict=True) for amount in pair]}")
    if w.axes == 1:
        image = emit.call(_aten.unsqueeze.default, x, 2)
        result = _pool2d(emit, image, mode, _as_image(w), ceil_mode, count_include_pad)
        return emit.call(_aten.squeeze.dim, result, 2)
    (top, bottom), (left, right) = w.pads
    return emit.call(
        POOL2D, x, mode, w.kernel, w.stride, [top, left, bottom, right], w.dilation, ceil_mode, count_include_pad
    )


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
    options: dict[str, Any] = {
        "auto_pad": auto_pad,
        "ceil_mode": ceil_mode,
        "dilations": dilations,
        "pads": pads,
        "strides": strides,
    }
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
