"""reduce-precision: activations and weights become fp16, and so does the arithmetic of convolutions; linear layers add
up in fp16 and fp32 in turn."""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.dtype import DType, dtype_named
from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.expression import Call, parse, walk
from pcc.ir.expression import Literal as Number
from pcc.ir.graph import arguments, constant, finish, infer, insert, layer_name
from pcc.passes.kept_wide import LAYERS, comparing_whole_numbers, computing_places, statistics
from pcc.passes.operands import change_operand

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
    """Makes activations and weights a narrower floating-point type.

    What an index is computed from stays fp32, and so do whole numbers that are compared, statistics of squares
    (`pcc.passes.kept_wide`), and sums of poolings and softmax. Inputs and outputs of the model stay what they are,
    unless ``ports``: then those that are fp32 become the narrower type, too.
    """

    dtype: Literal["float16"] = "float16"
    ports: bool = False

    name: ClassVar[str] = "reduce-precision"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: GraphModule) -> PassResult:
        narrow, graph = dtype_named(self.dtype), graph_module.graph
        bounded = statistics(graph_module)
        wide = computing_places(graph_module) | comparing_whole_numbers(graph_module) | bounded
        narrowed = {
            node for node in graph.nodes if node.op == "call_function" and node.target in NARROWED and node not in wide
        }
        if self.ports:
            narrowed |= {node for node in graph.find_nodes(op="placeholder") if node.meta["val"].dtype == torch.float32}
        for node in [node for node in graph.nodes if node in bounded]:
            _bound(node, narrowed, narrow)
        for node in list(graph.nodes):
            if node.op == "placeholder" and node in narrowed:
                node.meta["val"] = node.meta["val"].to(narrow.torch)
            elif node.op == "call_function":
                _convert_operands(node, narrowed, narrow)
                if node in narrowed:
                    _fit_numbers(node, narrow)
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


def _bound(node: Node, narrowed: Collection[Node], narrow: DType) -> None:
    """Keeps what nodes that become narrower read of a statistic in their type's range: the scale of a row that is
    constant may be beyond it, and zero times infinity is no number."""
    readers = [user for user in node.users if user in narrowed]
    if readers:
        bounded = insert(node.next, ops.ELEMENTWISE, ([node], _clipped("x0", narrow)), node, f"{node.name}_bounded")
        for reader in readers:
            reader.replace_input_with(node, bounded)


def _fit_numbers(node: Node, narrow: DType) -> None:
    """Keeps results in the type's range where a number that is not takes part, as in masks: -1e9 hides as well as the
    least number of fp16 does, and infinity is no number when all is hidden."""
    args, end = arguments(node), torch.finfo(narrow.torch).max
    if node.target is ops.ELEMENTWISE:
        text = args["expression"]
        if any(end < abs(value) < inf for value in _numbers(text)):
            node.args = (node.args[0], _clipped(text, narrow))
    elif node.target is ops.PAD and end < abs(args["value"]) < inf:
        node.args = (*node.args[:2], narrow.nearest(args["value"]), *node.args[3:])


def _numbers(text: str) -> list[float]:
    return [part.value for part in walk(parse(text)) if isinstance(part, Number)]


def _clipped(text: str, narrow: DType) -> str:
    end = torch.finfo(narrow.torch).max
    return str(Call("clip", (parse(text), Number(-end), Number(end))))


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
