"""What a node costs: parameters, non-zeros, multiply-accumulates, bytes."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pcc.ir.graph import arguments, constant, shape_of
from pcc.ir.ops import CONV2D, LINEAR, UNPACK, packed_weight
from pcc.sparsity.formats import format_named

_aten: Any = torch.ops.aten
_LINEAR = {LINEAR, _aten.linear.default}
_WEIGHTED = {CONV2D, _aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default, *_LINEAR}


@dataclass(frozen=True)
class Counts:
    """Counts of one node or of a whole graph; sums add field by field."""

    parameters: int = 0
    """Weights and biases of the dense layer."""
    nonzeros: int = 0
    macs: int = 0
    """Multiply-accumulates of the dense layer."""
    kept_macs: int = 0
    """Multiply-accumulates with weights that are not zero."""
    weight_bytes: int = 0
    """Bytes of all constants the node reads, as stored: packed weights with their index."""
    output_bytes: int = 0
    input_bytes: int = 0
    """Of the values that it reads and that are no constants."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def count(node: Node) -> Counts:
    """What one call costs; nothing for inputs, constants and outputs."""
    return sum(_constants(node).values(), _work(node))


def count_all(graph_module: GraphModule) -> Counts:
    """What a graph costs; a constant that several nodes read counts once, their work each time."""
    constants: dict[str, Counts] = {}
    for node in graph_module.graph.nodes:
        constants |= _constants(node)
    return sum(map(_work, graph_module.graph.nodes), sum(constants.values(), Counts()))


def _constants(node: Node) -> dict[str, Counts]:
    """What the constants cost that a call reads, by their names; a packed weight is its reader's."""
    if node.op != "call_function" or node.target is UNPACK:
        return {}
    costs = {}
    for operand in node.all_input_nodes:
        if operand.op == "get_attr":
            value = constant(operand)
            numbers = Counts(value.numel(), int(value.count_nonzero())) if value.is_floating_point() else Counts()
            costs[str(operand.target)] = numbers + Counts(weight_bytes=value.nbytes)
        elif operand.target is UNPACK:
            arrays = arguments(operand)["arrays"]
            costs |= {str(array.target): Counts(weight_bytes=constant(array).nbytes) for array in arrays}
            costs[str(arrays[0].target)] += Counts(prod(shape_of(operand)), _packed_nonzeros(operand))
    return costs


def _packed_nonzeros(unpack: Node) -> int:
    """Weights of a packed weight that are not zero."""
    return format_named(arguments(unpack)["format"]).nonzeros(packed_weight(unpack))


def _work(node: Node) -> Counts:
    """What a call costs beside its constants."""
    if node.op != "call_function":
        return Counts()
    macs, kept_macs = _macs(node)
    read = sum(
        _nbytes(operand)
        for operand in node.all_input_nodes
        if operand.op != "get_attr" and operand.target is not UNPACK
    )
    return Counts(macs=macs, kept_macs=kept_macs, output_bytes=_nbytes(node), input_bytes=read)


def _nbytes(node: Node) -> int:
    """Bytes of a node's value, or of all its parts."""
    value = node.meta["val"]
    return sum(part.nbytes for part in (value if isinstance(value, list | tuple) else [value]))


def _macs(node: Node) -> tuple[int, int]:
    """(dense, kept) multiply-accumulates: each weight is used once for each output position."""
    if node.target not in _WEIGHTED:
        return 0, 0
    bound, shape = arguments(node), shape_of(node)
    positions = prod(shape[:-1]) if node.target in _LINEAR else shape[0] * prod(shape[2:])
    weight = bound["weight"]
    dense = prod(shape_of(weight))
    if weight.target is UNPACK:
        return positions * dense, positions * _packed_nonzeros(weight)
    kept = int(constant(weight).count_nonzero()) if weight.op == "get_attr" else dense
    return positions * dense, positions * kept
