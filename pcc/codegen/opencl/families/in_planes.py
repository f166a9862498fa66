"""Convolutions whose tensors lie in planes: what does not is copied there, and back."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.families.tiles import Scratch
from pcc.codegen.opencl.kernels.map import COPY, emit_map
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.program import View


def border_of(padding: tuple[int, int, int, int], least: int = 0) -> int:
    """Rows of zeros that a convolution reads above or below its map; at least one where it reads any beside it, and at
    least what its family reads in any case."""
    top, left, bottom, right = padding
    return max(top, bottom, int(bool(left or right)), least)


def emit_in_planes(
    layer: Conv2d,
    schedule: Any,
    calls: Callable[[Conv2d, Any, Scratch], list[DeviceCall]],
    b: DeviceProgramBuilder,
    least_border: int = 0,
) -> None:
    """Records the calls of a layer."""
    name, y = layer.name, layer.y
    layer = replace(layer, x=_in_planes(layer.x, border_of(layer.geometry.padding, least_border), f"{name}.x", b))
    if layer.residual is not None:
        layer = replace(layer, residual=_in_planes(layer.residual, 0, f"{name}.residual", b))
    if not b.is_bordered(y, 0):
        layer = replace(layer, y=b.bordered(f"{name}.planes", y.shape, 0, y.dtype))

    def scratch(part: str, elements: int) -> View:
        return b.tensor(f"{name}.{part}", (elements,), layer.x.dtype)

    dense_macs = prod(layer.weight.shape) * prod(layer.y.shape[2:])
    for call in calls(layer, schedule, scratch):
        b.device_call(call, dense_macs if call.macs else 0)
    if layer.y is not y:
        emit_map(name, y, [layer.y], COPY, b)


def _in_planes(view: View, border: int, name: str, b: DeviceProgramBuilder) -> View:
    """The tensor in planes that have such a border."""
    if b.is_bordered(view, border):
        return view
    planes = b.bordered(name, view.shape, border, view.dtype)
    emit_map(name, planes, [view], COPY, b)
    return planes
