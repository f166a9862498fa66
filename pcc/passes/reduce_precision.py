"""reduce-precision: activations and weights become fp16, and so does the arithmetic of convolutions; linear layers add
up in fp16 and fp32 in turn."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.dtype import DType, dtype_named
from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.graph import arguments, constant, finish, infer, insert, layer_name
from pcc.passes.operands import change_operand

LAYERS = (ops.CONV2D, ops.LINEAR, ops.MATMUL)
NARROWED = (
    *LAYERS,
    *(ops.POOL2D, ops.RESIZE2D, ops.SOFTMAX, ops.ELEMENTWISE, ops.CONCAT, ops.GATHER),
    *(ops.RESHAPE, ops.PERMUTE, ops.SLICE, ops.EXPAND, ops.PAD),
)
"""Operators that take and give the narrower type. The others, which find places or keep running sums, stay fp32."""

FP32_ARGUMENTS = {**dict.fromkeys((ops.CONV2D, ops.LINEAR), ("bias", "parameter")), ops.GATHER: ("index",)}
"""What stays fp32 of those: what each channel has one of, which is little, and places, which fp16 holds up to 2048
only."""


@dataclass(frozen=True)
class ReducePrecision:
    """Makes activations and weights a narrower floating-point type; what an index is computed from stays fp32, and so
    do sums of poolings and softmax.

    Inputs and outputs of the model stay what they are, unless ``ports``: then those that are fp32 become the narrower
    type, too.
    """

    dtype: Literal["float16"] = "float16"
    ports: bool = False

    name: ClassVar[str] = "reduce-precision"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: GraphModule) -> PassResult:
        narrow, graph = dtype_named(self.dtype), graph_module.graph
        wide = _computing_indices(graph_module)
        narrowed = {
            node for node in graph.nodes if node.op == "call_function" and node.target in NARROWED and node not in wide
        }
        if self.ports:
            narrowed |= {node for node in graph.find_nodes(op="placeholder") if node.meta["val"].dtype == torch.float32}
        for node in list(graph.nodes):
            if node.op == "placeholder" and node in narrowed:
                node.meta["val"] = node.meta["val"].to(narrow.torch)
            elif node.op == "call_function":
                _convert_operands(node, narrowed, narrow)
                infer(node)
        _convert_outputs(graph_module, narrow, narrowed if self.ports else ())
        finish(graph_module)
        return PassResult(graph_module, bool(narrowed))


def narrowed_constant(node: Node, operand: Node, dtype: DType) -> torch.Tensor:
    """The value of a constant operand in a narrower type; `PccError` where it does not fit."""
    value = constant(operand)
    largest, end = (
        value.abs().where(value.isfinite(), 0.0).max(),
        torch.finfo(dtype.torch).max,
    )  # infinities, as in masks, are in both types
    if largest > end:
        raise PccError(
            f"layer {layer_name(node)}: {operand.target} has values up to {largest:.3g}, and {dtype} ends at {end:g}"
        )
    return value.to(dtype.torch)


def _computing_indices(graph_module: GraphModule) -> set[Node]:
    """The nodes from which indices and whole numbers are computed, back to the layers whose values they look at."""
    pending = [node.args[0] for node in graph_module.graph.nodes if node.target is ops.CONVERT]
    pending += [
        arguments(node)["index"] for node in graph_module.graph.nodes if node.target in (ops.GATHER, ops.SCATTER)
    ]
    found: set[Any] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, Node) and node.op == "call_function" and node not in found and node.target not in LAYERS:
            found.add(node)
            pending += node.all_input_nodes
    return found


def _convert_operands(node: Node, narrowed: Collection[Node], narrow: DType) -> None:
    """Gives a call operands of the type it takes: constants in it, values converted once."""
    args = arguments(node)
    wide = {args[name] for name in FP32_ARGUMENTS.get(node.target, ()) if args[name] is not None}
    for operand in node.all_input_nodes:
        wanted = narrow if node in narrowed and operand not in wide else dtype_named("float32")
        held = operand.meta["val"].dtype
        if node.target is ops.CONVERT or not held.is_floating_point or held == wanted.torch:
            continue
        if operand.op == "get_attr":
            change_operand(node, operand, narrowed_constant(node, operand, wanted))
        else:
            node.replace_input_with(operand, _converted(operand, wanted))


def _converted(value: Node, dtype: DType) -> Node:
    """The conversion of a value to a type, right behind it; the one that is there already, if one is."""
    for user in value.users:
        if user.target is ops.CONVERT and user.args[1] == dtype.name:
            return user
    return insert(value.next, ops.CONVERT, (value, dtype.name), value, f"{value.name}_{dtype.short}")


def _convert_outputs(graph_module: GraphModule, narrow: DType, narrowed: Collection[Node]) -> None:
    """Gives the model's outputs the types that they had, or the narrower one where their node is ``narrowed``."""
    output, ports = graph_module.graph.output_node(), dtype_named("float32")
    returned = []
    for node in output.all_input_nodes if not isinstance(output.args[0], list | tuple) else output.args[0]:
        assert isinstance(node, Node)
        wanted = narrow if narrowed else ports
        held = node.meta["val"].dtype
        returned.append(
            _converted(node, wanted)
            if held.is_floating_point and held != wanted.torch and node.op != "get_attr"
            else node
        )
    output.args = (tuple(returned),)
