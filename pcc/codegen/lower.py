"""Graph to kernel program: each node becomes a layer, each layer is written by its kernel family; data movement becomes views where it can."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from pcc.codegen import layers
from pcc.codegen.layers import ConvGeometry
from pcc.codegen.program import Program, ProgramBuilder, View, contiguous_strides
from pcc.errors import PccError
from pcc.ir.activation import Activation
from pcc.ir.annotations import KernelChoice, annotation
from pcc.sparsity.fkw import FKW


def lower(graph_module: GraphModule, name: str, lanes: int) -> Program:
    """The kernel program of a graph whose convolutions have their kernels selected, for vectors of ``lanes`` fp32 values.

    Raises `PccError` for a node that no kernel family computes (the frontend reports those earlier, all at once).
    """
    lowering = Lowering(graph_module, ProgramBuilder(name, lanes))
    for node in graph_module.graph.nodes:
        lowering.visit(node)
    return lowering.builder.build()


def shape_of(node: Node) -> tuple[int, ...]:
    """The static shape of a node's value."""
    return tuple(int(size) for size in node.meta["val"].shape)


def bound_arguments(node: Node) -> dict[str, Any]:
    """A node's arguments by their names in the operator's schema, defaults filled in."""
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


class Lowering:
    """One graph being lowered: the view of every value so far."""

    def __init__(self, graph_module: GraphModule, builder: ProgramBuilder) -> None:
        self.graph_module = graph_module
        self.builder = builder
        self.views: dict[Node, View] = {}

    def visit(self, node: Node) -> None:
        self.builder.layer = node.name
        if node.op == "placeholder":
            self.views[node] = self.builder.input(node.name, shape_of(node))
        elif node.op == "output":
            self._outputs(node)
        elif node.op == "call_function":
            rule = _RULES.get(str(node.target))
            if rule is None:
                raise PccError(f"node {node.name}: no kernel computes {node.target}")
            self.views[node] = rule(self, node, bound_arguments(node))

    def array(self, node: Node) -> np.ndarray:
        """The value of a constant node (a ``get_attr``)."""
        if node.op != "get_attr":
            raise PccError(f"node {node.name}: its value must be a constant here, not the result of {node.target}")
        value = self.graph_module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value.detach().cpu().contiguous().numpy()  # type: ignore[union-attr]

    def optional_array(self, node: Node | None) -> np.ndarray | None:
        return None if node is None else self.array(node)

    def view(self, node: Node) -> View:
        """Where a node's value lies; constants are placed when they are first asked for."""
        if node not in self.views:
            self.views[node] = self.builder.constant(str(node.target), self.array(node))
        return self.views[node]

    def optional_view(self, node: Node | None) -> View | None:
        return None if node is None else self.view(node)

    def result(self, node: Node) -> View:
        """A new contiguous tensor for a node's value."""
        return self.builder.tensor(node.name, shape_of(node))

    def contiguous(self, view: View, name: str) -> View:
        """The same values in a contiguous tensor: ``view`` itself if it is one."""
        if view.is_contiguous:
            return view
        from pcc.codegen.kernels.copy import emit_copy

        copy = self.builder.tensor(name, view.shape)
        emit_copy(layers.Copy(name, view, copy), self.builder)
        return copy

    def _outputs(self, node: Node) -> None:
        from pcc.codegen.kernels.copy import emit_copy

        returned = [value for value in torch.fx.node.map_arg(node.args[0], lambda n: n) or ()] if isinstance(node.args[0], tuple | list) else [node.args[0]]
        names = self.graph_module.meta.get("pcc.output_names") or _default_names(len(returned))
        for name, value in zip(names, returned, strict=True):
            view = self.view(value)
            buffer = self.builder.buffers[view.buffer]
            if not (view.is_contiguous and view.offset == 0 and buffer.elements == prod(view.shape) and buffer.role in ("scratch", "output")):
                copy = self.builder.tensor(name, view.shape)
                emit_copy(layers.Copy(name, view, copy), self.builder)
                view = copy
            self.builder.output(name, view)


def _default_names(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def geometry_of(arguments: Mapping[str, Any], kernel: tuple[int, int]) -> ConvGeometry:
    """The geometry of a convolution's or pooling's arguments."""
    top, left, bottom, right = arguments["padding"]
    return ConvGeometry(kernel, _pair(arguments["stride"]), (top, left, bottom, right), _pair(arguments["dilation"]))


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _conv2d(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    weight = lowering.array(arguments["weight"])
    layer = layers.Conv2d(
        node.name,
        x=lowering.view(arguments["x"]),
        y=lowering.result(node),
        weight=weight,
        bias=lowering.optional_array(arguments["bias"]),
        geometry=geometry_of(arguments, (weight.shape[2], weight.shape[3])),
        groups=arguments["groups"],
        residual=lowering.optional_view(arguments["residual"]),
        activation=Activation.parse(arguments["activation"]),
    )
    choice = annotation(node, KernelChoice)
    if choice is not None and choice.family == "conv-depthwise":
        from pcc.codegen.kernels.conv_depthwise import emit_conv_depthwise as emit
    else:
        from pcc.codegen.kernels.conv_dense import emit_conv_dense as emit
    emit(layer, lowering.builder)
    return layer.y


def _pattern_conv2d(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.conv_sparse import emit_conv_sparse

    o, i, kh, kw = (int(size) for size in arguments["shape"])
    arrays = {name: lowering.array(arguments[name]) for name in ("weight", "patterns", "reorder", "offset", "index", "kernel_stride")}
    stride = arrays.pop("kernel_stride")
    layer = layers.Conv2d(
        node.name,
        x=lowering.view(arguments["x"]),
        y=lowering.result(node),
        weight=FKW(shape=(o, i, kh, kw), groups=arguments["groups"], group=arguments["filter_group"], stride=stride, **arrays),
        bias=lowering.optional_array(arguments["bias"]),
        geometry=geometry_of(arguments, (kh, kw)),
        groups=arguments["groups"],
        residual=lowering.optional_view(arguments["residual"]),
        activation=Activation.parse(arguments["activation"]),
    )
    emit_conv_sparse(layer, lowering.builder)
    return layer.y


def _linear(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.linear import emit_linear

    residual = lowering.optional_view(arguments["residual"])
    layer = layers.Linear(
        node.name,
        x=lowering.contiguous(lowering.view(arguments["x"]), f"{node.name}.x"),
        y=lowering.result(node),
        weight=lowering.array(arguments["weight"]),
        bias=lowering.optional_array(arguments["bias"]),
        residual=None if residual is None else lowering.contiguous(residual, f"{node.name}.residual"),
        activation=Activation.parse(arguments["activation"]),
    )
    emit_linear(layer, lowering.builder)
    return layer.y


def _pool2d(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.pool import emit_pool

    geometry = geometry_of(arguments, _pair(arguments["kernel"]))
    layer = layers.Pool2d(node.name, lowering.view(arguments["x"]), lowering.result(node), arguments["mode"], geometry, arguments["count_include_pad"])
    emit_pool(layer, lowering.builder)
    return layer.y


def _resize2d(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.resize import emit_resize

    scales = arguments["scales"]
    layer = layers.Resize2d(
        node.name,
        lowering.view(arguments["x"]),
        lowering.result(node),
        arguments["mode"],
        arguments["align_corners"],
        None if scales is None else (float(scales[0]), float(scales[1])),
    )
    emit_resize(layer, lowering.builder)
    return layer.y


def _softmax(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.softmax import emit_softmax

    x = lowering.contiguous(lowering.view(arguments["x"]), f"{node.name}.x")
    layer = layers.Softmax(node.name, x, lowering.result(node), arguments["dim"] % len(x.shape), arguments["log"])
    emit_softmax(layer, lowering.builder)
    return layer.y


def _elementwise(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.elementwise import emit_elementwise

    layer = layers.Elementwise(node.name, tuple(lowering.view(x) for x in arguments["xs"]), lowering.result(node), arguments["expression"])
    emit_elementwise(layer, lowering.builder)
    return layer.y


def _concat(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    from pcc.codegen.kernels.copy import emit_copy

    y = lowering.result(node)
    dim = arguments["dim"] % len(y.shape)
    position = 0
    for operand in arguments["xs"]:
        x = lowering.view(operand)
        emit_copy(layers.Copy(node.name, x, slice_view(y, dim, position, position + x.shape[dim])), lowering.builder)
        position += x.shape[dim]
    return y


def _reshape(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    x = lowering.contiguous(lowering.view(node.args[0]), f"{node.name}.x")  # type: ignore[arg-type]
    shape = shape_of(node)
    return View(x.buffer, shape, contiguous_strides(shape), x.offset)


def _permute(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    x = lowering.view(node.args[0])  # type: ignore[arg-type]
    order = [dim % len(x.shape) for dim in arguments["dims"]]
    permuted = View(x.buffer, tuple(x.shape[dim] for dim in order), tuple(x.strides[dim] for dim in order), x.offset)
    return lowering.contiguous(permuted, node.name)


def _slice(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    x = lowering.view(node.args[0])  # type: ignore[arg-type]
    dim, step = arguments["dim"] % len(x.shape), arguments["step"]
    begin, end, _ = slice(arguments["start"], arguments["end"]).indices(x.shape[dim])
    if step == 1:
        return slice_view(x, dim, begin, max(begin, end))
    strides = (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :])
    stepped = View(x.buffer, shape_of(node), strides, x.offset + begin * x.strides[dim])
    return lowering.contiguous(stepped, node.name) if dim == len(x.shape) - 1 else stepped


def _expand(lowering: Lowering, node: Node, arguments: dict[str, Any]) -> View:
    x, shape = lowering.view(node.args[0]), shape_of(node)  # type: ignore[arg-type]
    padded = (1,) * (len(shape) - len(x.shape)) + x.shape
    strides = (0,) * (len(shape) - len(x.shape)) + x.strides
    spread = View(x.buffer, shape, tuple(0 if size == 1 else stride for size, stride in zip(padded, strides, strict=True)), x.offset)
    return lowering.contiguous(spread, node.name)


def slice_view(view: View, dim: int, begin: int, end: int) -> View:
    """``view[..., begin:end, ...]`` along one dimension."""
    shape = (*view.shape[:dim], end - begin, *view.shape[dim + 1 :])
    return View(view.buffer, shape, view.strides, view.offset + begin * view.strides[dim])


_RULES: dict[str, Callable[[Lowering, Node, dict[str, Any]], View]] = {
    "pcc.conv2d.default": _conv2d,
    "pcc.pattern_conv2d.default": _pattern_conv2d,
    "pcc.linear.default": _linear,
    "pcc.pool2d.default": _pool2d,
    "pcc.resize2d.default": _resize2d,
    "pcc.softmax.default": _softmax,
    "pcc.elementwise.default": _elementwise,
    "pcc.concat.default": _concat,
    "aten.reshape.default": _reshape,
    "aten.view.default": _reshape,
    "aten.permute.default": _permute,
    "aten.slice.Tensor": _slice,
    "aten.expand.default": _expand,
}
