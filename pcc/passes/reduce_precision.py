"""reduce-precision: activations and weights become fp16, and so does the arithmetic of convolutions; linear layers add
up in fp16 and fp32 in turn."""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.dtype import DType, dtype_named
from pcc.errors import PccError
from pcc.ir import ops
from pcc.ir.expression import Call, Operand, numbers, parse, substitute, walk
from pcc.ir.expression import Literal as Number
from pcc.ir.graph import arguments, constant, finish, infer, insert, layer_name, shape_of
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

LOST = 2.0**-20
"""How much of a layer's squared norm rounding its weights may take away: four times what it does to weights that the
type holds with all its digits. A filter that is little beside others, as batch norms make some, counts as little."""


@dataclass(frozen=True)
class ReducePrecision:
    """Makes activations and weights a narrower floating-point type.

    What an index is computed from stays fp32, and so do whole numbers that are compared, statistics and what small
    numbers keep from zero (`pcc.passes.kept_wide`), and sums of poolings and softmax. Inputs and outputs of the model
    stay what they are, unless ``ports``: then those that are fp32 become the narrower type, too.
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
        rounded = {node for node in graph.find_nodes(op="placeholder") if not narrowed.isdisjoint(node.users)}
        for node in [node for node in graph.nodes if node in bounded]:
            _bound(node, narrowed, narrow)
        for node in list(graph.nodes):
            if node.op == "placeholder" and node in narrowed:
                node.meta["val"] = node.meta["val"].to(narrow.torch)
            elif node.op == "call_function":
                _convert_operands(node, narrowed, bounded, rounded, narrow)
                if node in narrowed:
                    _fit_numbers(node, narrow)
                if node in narrowed and node.target is ops.ELEMENTWISE:
                    _put_narrow_first(node, narrow)
                infer(node)
        _convert_outputs(graph_module, narrow, narrowed if self.ports else ())
        finish(graph_module)
        return PassResult(graph_module, bool(narrowed))


def narrowed_constant(node: Node, operand: Node, dtype: DType) -> torch.Tensor:
    """The value of a constant operand in a narrower type; `PccError` where that does not hold it."""
    _check_range(node, operand, dtype)
    value = constant(operand)
    if (lost := _lost(value, dtype)) > LOST:
        raise PccError(
            f"layer {layer_name(node)}: {operand.target} has values up to {_largest(value):.3g}, too small for "
            f"{dtype}: rounding would change them by {lost**0.5:.2g} of their norm"
        )
    return value.to(dtype.torch)


def _check_range(node: Node, operand: Node, dtype: DType) -> None:
    largest, end = _largest(constant(operand)), torch.finfo(dtype.torch).max
    if largest > end:
        raise PccError(
            f"layer {layer_name(node)}: {operand.target} has values up to {largest:.3g}, and {dtype} ends at {end:g}"
        )


def _largest(value: torch.Tensor) -> float:
    """The largest absolute value but infinities, which masks have and all types hold."""
    return float(value.abs().where(value.isfinite(), 0.0).max())


def _lost(value: torch.Tensor, dtype: DType) -> float:
    """How much of the squared norm of a constant, infinities left out, rounding to a type takes away."""
    wide = value.double().where(value.isfinite(), 0.0)
    lost = (wide - wide.to(dtype.torch)).square().sum() / wide.square().sum().clamp_min(torch.finfo(torch.double).tiny)
    return float(lost)


def _convert_operands(
    node: Node, narrowed: Collection[Node], bounded: Collection[Node], rounded: Collection[Node], narrow: DType
) -> None:
    """Gives a call operands of the type it takes: constants in it, values converted once. What computes element by
    element takes statistics, and constants that are not in the type's range, as they are."""
    args, each = arguments(node), node.target is ops.ELEMENTWISE
    if each and node in narrowed:
        _read_before_expansion(node, bounded)
    if node.target is ops.CONV2D and node in narrowed and args["bias"] is not None:
        _check_range(node, args["bias"], narrow)  # its sums start from there
    wide = {args[name] for name in FP32_ARGUMENTS.get(node.target, ()) if args[name] is not None}
    for operand in node.all_input_nodes:
        stays = operand in wide or (
            each and (operand in bounded or (operand.op == "get_attr" and not _fits(operand, narrow)))
        )
        wanted = narrow if node in narrowed and not stays else dtype_named("float32")
        held = operand.meta["val"].dtype
        if node.target is ops.CONVERT or not held.is_floating_point:
            continue
        if node in bounded and operand in rounded:
            node.replace_input_with(operand, _converted(_converted(operand, narrow), wanted))
        elif held == wanted.torch:
            continue
        elif operand.op != "get_attr":
            node.replace_input_with(operand, _converted(operand, wanted))
        elif node.target in (*LAYERS, ops.GATHER):
            change_operand(node, operand, narrowed_constant(node, operand, wanted))
        else:
            change_operand(node, operand, _nearest(constant(operand), wanted))


def _fits(operand: Node, dtype: DType) -> bool:
    """Whether a type holds a constant."""
    value = constant(operand)
    return _largest(value) <= torch.finfo(dtype.torch).max and _lost(value, dtype) <= LOST


def _nearest(value: torch.Tensor, dtype: DType) -> torch.Tensor:
    end = torch.finfo(dtype.torch).max
    return value.clamp(-end, end).where(value.isfinite(), value).to(dtype.torch)


def _read_before_expansion(node: Node, bounded: Collection[Node]) -> None:
    """Has what computes element by element read statistics before they are expanded, where it does that itself."""
    for operand in node.all_input_nodes:
        if operand.target is ops.EXPAND and operand in bounded:
            before: Any = operand.args[0]
            others = [before if each is operand else each for each in arguments(node)["xs"]]
            if torch.broadcast_shapes(*map(shape_of, others)) == shape_of(node):
                node.replace_input_with(operand, before)


def _bound(node: Node, narrowed: Collection[Node], narrow: DType) -> None:
    """Keeps what is converted of a statistic in the narrower type's range: the scale of a row that is constant may be
    beyond it, and zero times infinity is no number."""
    readers = [user for user in node.users if user in narrowed and user.target is not ops.ELEMENTWISE]
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
        constants = [_largest(constant(operand)) for operand in args["xs"] if operand.op == "get_attr"]
        if any(end < abs(value) < inf for value in (*numbers(walk(parse(text))), *constants)):
            node.args = (node.args[0], _clipped(text, narrow))
    elif node.target is ops.PAD and end < abs(args["value"]) < inf:
        node.args = (*node.args[:2], narrow.nearest(args["value"]), *node.args[3:])


def _put_narrow_first(node: Node, narrow: DType) -> None:
    """Exchanges operands: the first one's type is the result's."""
    xs, text = arguments(node)["xs"], arguments(node)["expression"]
    place = next(place for place, operand in enumerate(xs) if operand.meta["val"].dtype == narrow.torch)
    if place:
        swapped = substitute(parse(text), {0: Operand(place), place: Operand(0)})
        node.args = ([xs[place], *xs[1:place], xs[0], *xs[place + 1 :]], str(swapped))


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
