"""What a node costs: parameters, non-zeros, multiply-accumulates, bytes."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pcc.ir.graph import arguments, constant, shape_of
from pcc.ir.ops import CONV2D, LINEAR, PATTERN_CONV2D

_aten: Any = torch.ops.aten
_WEIGHTED = {CONV2D, PATTERN_CONV2D, LINEAR, _aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default, _aten.linear.default}


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

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def count(node: Node) -> Counts:
    """What one call costs; nothing for inputs, constants and outputs."""
    if node.op != "call_function":
        return Counts()
    constants = {operand: constant(operand) for operand in node.all_input_nodes if operand.op == "get_attr"}
    stored = sum(value.nbytes for value in constants.values())
    numbers = [value for value in constants.values() if value.is_floating_point()]
    parameters = sum(value.numel() for value in numbers)
    nonzeros = sum(int(value.count_nonzero()) for value in numbers)
    macs, kept_macs = _macs(node)
    if node.target is PATTERN_CONV2D:
        bound = arguments(node)
        parameters += prod(bound["shape"]) - shape_of(bound["weight"])[0] * prod(shape_of(bound["weight"])[1:])
    value = node.meta["val"]
    return Counts(parameters, nonzeros, macs, kept_macs, stored, sum(part.nbytes for part in (value if isinstance(value, list | tuple) else [value])))


def count_all(graph_module: GraphModule) -> Counts:
    """What a graph costs; a constant that several nodes read counts once."""
    total, seen = Counts(), set()
    for node in graph_module.graph.nodes:
        cost = count(node)
        shared = {operand.target for operand in node.all_input_nodes if operand.op == "get_attr"}
        if shared & seen:
            cost = Counts(0, 0, cost.macs, cost.kept_macs, 0, cost.output_bytes)
        seen |= shared
        total += cost
    return total


def _macs(node: Node) -> tuple[int, int]:
    """(dense, kept) multiply-accumulates: each weight is used once for each output position."""
    if node.target not in _WEIGHTED:
        return 0, 0
    bound = arguments(node)
    shape = shape_of(node)
    weight = bound["weight"]
    positions = prod(shape) // (shape_of(weight)[0] if node.target is not PATTERN_CONV2D else bound["shape"][0])
    dense = prod(bound["shape"] if node.target is PATTERN_CONV2D else shape_of(weight))
    kept = int(constant(weight).count_nonzero()) if weight.op == "get_attr" else dense
    return positions * dense, positions * kept
