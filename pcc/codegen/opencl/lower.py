"""Graph to a program for a GPU. How an operator becomes layers is `pcc.codegen.lower`'s; who writes them is told
below."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from torch.fx import GraphModule, Node

from pcc.codegen import layers
from pcc.codegen.family import WeightFormat
from pcc.codegen.lower import Lowering, has_planes
from pcc.codegen.opencl.families import FAMILIES, offers
from pcc.codegen.opencl.kernels.conv_any import emit_conv
from pcc.codegen.opencl.kernels.gather import emit_gather
from pcc.codegen.opencl.kernels.map import COPY, emit_map
from pcc.codegen.opencl.kernels.pool import emit_pool
from pcc.codegen.opencl.kernels.products import emit_linear, emit_matmul
from pcc.codegen.opencl.kernels.resize import emit_resize
from pcc.codegen.opencl.kernels.softmax import emit_softmax
from pcc.codegen.opencl.planes import LEFT
from pcc.codegen.opencl.profiles import profile_named
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.plan_memory import PlanMemory
from pcc.codegen.program import Program, Stage, View
from pcc.dtype import FLOAT32, dtype_of
from pcc.errors import PccError
from pcc.ir.activation import IDENTITY
from pcc.ir.graph import arguments, max_batch, shape_of
from pcc.ir.ops import CONV2D
from pcc.passes.packing import packed_weight
from pcc.sparsity.formats import DENSE, format_named

ALIGNMENT = 512
"""Bytes to which a buffer's start is aligned: CL_DEVICE_MEM_BASE_ADDR_ALIGN of all drivers that we know of."""

LARGEST_STRIDE = 3
"""Of tiled convolutions: a tile that reaches below its map reads so many rows of what a buffer has behind it."""


def lower_device(graph_module: GraphModule, name: str, profile: str) -> Program:
    """The planned program of a graph for a GPU of a profile: each convolution in the form that costs least there.

    Raises `PccError` for a node that no GPU kernel computes.
    """
    lowering = DeviceLowering(graph_module, DeviceProgramBuilder(name, profile_named(profile)))
    for node in graph_module.graph.nodes:
        lowering.visit(node)
    program = lowering.builder.build()
    if max_batch(graph_module):
        turns = (Stage(0, len(program.calls), at_once=False),)
        program = replace(program, max_batch=max_batch(graph_module), batch_stages=turns)
    return PlanMemory(ALIGNMENT)(program)


class DeviceLowering(Lowering):
    """One graph being lowered for a GPU."""

    builder: DeviceProgramBuilder

    def result(self, node: Node) -> View:
        """Planes for what convolutions write and read, with the border that they need; else a contiguous tensor."""
        readers = [user for user in node.users if user.target is CONV2D]
        if not has_planes(node) or not (readers or node.target is CONV2D):
            return self.tensor(node)
        border = max((border_of(user) for user in readers if arguments(user)["x"] is node), default=0)
        return self.builder.bordered(node.name, shape_of(node), border, dtype_of(node.meta["val"].dtype))

    def write(self, layer: Any) -> None:
        _WRITERS[type(layer)](layer, self.builder)

    def write_plain(self, node: Node, emit: Callable[..., None], y: View, args: dict[str, Any]) -> None:
        raise PccError(f"node {node.name}: no GPU kernel computes {node.target}; the network stays on the CPU")

    def emit(self, node: Node, layer: layers.Conv2d | layers.Linear) -> View:
        if not isinstance(layer.weight, np.ndarray):
            raise PccError(
                f"node {node.name}: its weight is packed for the CPU: a GPU's program is lowered before that"
            )
        if layer.parameter is not None:
            return self._with_parameter(node, layer, layer.parameter)
        if isinstance(layer, layers.Linear):
            emit_linear(layer, self.builder)
        elif not is_tiled(layer):
            emit_conv(layer, self.builder)
        else:
            self._tiled(node, layer, layer.weight)
        return layer.y

    def _with_parameter(self, node: Node, layer: layers.Conv2d | layers.Linear, parameter: np.ndarray) -> View:
        """A layer with an activation that has a parameter for each channel, which GPU kernels apply by themselves."""
        b, y = self.builder, layer.y
        name = f"{node.name}.sums"
        sums = b.bordered(name, y.shape, 0, y.dtype) if len(y.shape) == 4 else b.tensor(name, y.shape, y.dtype)
        self.emit(node, replace(layer, y=sums, activation=IDENTITY, parameter=None))
        of_channels = b.constant(f"{layer.name}.parameter", parameter.reshape(-1, *(1,) * (len(y.shape) - 2)))
        emit_map(node.name, y, [sums, of_channels], f"{layer.activation}(x0,x1)", b)
        return y

    def _tiled(self, node: Node, layer: layers.Conv2d, weight: np.ndarray) -> None:
        """Records a convolution by the family that costs least; tensors that do not lie in planes are copied."""
        b, y = self.builder, layer.y
        layer = replace(layer, x=self._in_planes(layer.x, border_of(node), f"{node.name}.x"))
        if layer.residual is not None:
            layer = replace(layer, residual=self._in_planes(layer.residual, 0, f"{node.name}.residual"))
        if not b.is_bordered(y, 0):
            layer = replace(layer, y=b.bordered(f"{node.name}.planes", y.shape, 0, y.dtype))
        forms: dict[WeightFormat, layers.Conv2d] = {DENSE: layer}
        packed = "" if weight.all() else packed_weight(node, format_named("fkw"), weight)
        if not isinstance(packed, str):
            forms["fkw"] = replace(layer, weight=packed)
        found, refused = offers(forms, b.profile)
        if not found:
            raise PccError(f"node {node.name}: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
        family = FAMILIES[found[0].family]
        dense_macs = weight.size * prod(layer.y.shape[2:])

        def scratch(name: str, elements: int) -> View:
            return b.tensor(f"{node.name}.{name}", (elements,), layer.x.dtype)

        for call in family.calls(forms[family.format], found[0].schedule, FLOAT32, b.profile, scratch):
            b.device_call(call, dense_macs if call.macs else 0)
        if layer.y is not y:
            emit_map(node.name, y, [layer.y], COPY, b)

    def _in_planes(self, view: View, border: int, name: str) -> View:
        """The tensor in planes that have such a border."""
        if self.builder.is_bordered(view, border):
            return view
        planes = self.builder.bordered(name, view.shape, border, view.dtype)
        emit_map(name, planes, [view], COPY, self.builder)
        return planes


def border_of(node: Node) -> int:
    """Rows of zeros that a convolution reads above or below its map; at least one where it reads any beside it."""
    top, left, bottom, right = arguments(node)["padding"]
    return max(top, bottom, int(bool(left or right)))


def is_tiled(layer: layers.Conv2d) -> bool:
    """Whether tiles reach all that a convolution reads: padding within the zeros beside a row, and small strides."""
    geometry = layer.geometry
    return max(geometry.padding[1], geometry.padding[3]) <= LEFT and max(geometry.stride) <= LARGEST_STRIDE


def _copy(layer: layers.Copy | layers.Convert, b: DeviceProgramBuilder) -> None:
    emit_map(layer.name, layer.y, [layer.x], COPY, b)


def _fill(layer: layers.Fill, b: DeviceProgramBuilder) -> None:
    emit_map(layer.name, layer.y, [], str(float(layer.value)), b)


def _elementwise(layer: layers.Elementwise, b: DeviceProgramBuilder) -> None:
    emit_map(layer.name, layer.y, layer.inputs, layer.expression, b)


_WRITERS: dict[type, Callable[[Any, DeviceProgramBuilder], None]] = {
    layers.Convert: _copy,
    layers.Copy: _copy,
    layers.Elementwise: _elementwise,
    layers.Fill: _fill,
    layers.Gather: emit_gather,
    layers.MatMul: emit_matmul,
    layers.Pool2d: emit_pool,
    layers.Resize2d: emit_resize,
    layers.Softmax: emit_softmax,
}
"""What records the calls of layers that one kernel computes."""
