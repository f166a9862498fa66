"""Changing the order of a convolution's output channels for free: everything that reads them is reordered with them, at compile time.

The order runs through what treats channels alike (pooling, resampling, elementwise operations, padding, flattening), takes depthwise convolutions
along, and ends in the input channels of convolutions and linear layers. Where a reader needs the channels as they are, there is a reason instead.
Orders are int64 (C,): new channel ``i`` is old channel ``order[i]``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from pcc.ir.annotations import FilterOrder, annotate, annotation
from pcc.ir.graph import arguments, constant, shape_of
from pcc.ir.ops import CONV2D, ELEMENTWISE, LINEAR, PAD, POOL2D, RESHAPE, RESIZE2D, SLICE
from pcc.passes.channel_use import flattened
from pcc.passes.operands import change_operand


def reorder_channels(conv: Node, order: np.ndarray) -> str | None:
    """Reorders a convolution's filters and everything that reads its output; or says why that is not free, and changes nothing.

    Reordered convolutions get, or update, their `FilterOrder`. The graph computes the same as before.
    """
    plan = _Plan()
    try:
        plan.reorder_filters(conv, order)
        for node in _after(conv):
            reads = [operand for operand in node.all_input_nodes if operand in plan.carried]
            if reads:
                _RULES.get(node.target, _needs_order)(node, plan)
    except _NotFree as reason:
        return str(reason)
    plan.carry_out()
    return None


class _NotFree(Exception):
    """Why a node cannot have its input in another order."""


@dataclass
class _Plan:
    """What would have to change."""

    carried: dict[Node, np.ndarray] = field(default_factory=dict)
    """Nodes whose channels (dimension 1) come in another order."""
    filters: dict[Node, np.ndarray] = field(default_factory=dict)
    """Those that are convolutions, whose own parameters change for that."""
    constants: list[tuple[Node, Node, int, np.ndarray]] = field(default_factory=list)
    """(reader, ``get_attr``, axis, order) of parameters to reorder for that reader."""

    def reorder_filters(self, conv: Node, order: np.ndarray) -> None:
        given = arguments(conv)
        if given["residual"] is not None:
            raise _NotFree(f"a residual is added to it in {conv.name}")
        self.reorder_constant(conv, given["weight"], 0, order)
        if given["bias"] is not None:
            self.reorder_constant(conv, given["bias"], 0, order)
        self.carried[conv] = self.filters[conv] = order

    def reorder_constant(self, reader: Node, operand: Node, axis: int, order: np.ndarray) -> None:
        if operand.op != "get_attr":
            raise _NotFree(f"{operand.name}, which {reader.name} reads, is computed")
        self.constants.append((reader, operand, axis, order))

    def carry_out(self) -> None:
        for reader, operand, axis, order in self.constants:
            change_operand(reader, operand, _reordered(constant(operand), axis, order))
        for conv, order in self.filters.items():
            before = annotation(conv, FilterOrder)
            original = order if before is None else np.array(before.order)[order]
            annotate(conv, FilterOrder(tuple(original.tolist())))


def _reordered(value: Tensor, axis: int, order: np.ndarray) -> Tensor:
    """The value with slice ``order[i]`` of an axis as its i-th. Slices that stay neighbours move together: one copy for each run, not for each."""
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    run = int(np.gcd.reduce(np.append(breaks, len(order))))
    by_runs = value.reshape(*value.shape[:axis], -1, run, *value.shape[axis + 1 :])
    return by_runs.index_select(axis, torch.from_numpy(order[::run] // run)).reshape(value.shape)


def _after(node: Node) -> list[Node]:
    """The nodes behind a node, in the graph's order."""
    nodes = list(node.graph.nodes)
    return nodes[nodes.index(node) + 1 :]


# ---- rules: what a reader of reordered channels does with them ----


def _convolution(node: Node, plan: _Plan) -> None:
    given = arguments(node)
    order, weight, groups = _order_of_input(node, plan), given["weight"], given["groups"]
    if groups == 1:
        plan.reorder_constant(node, weight, 1, order)
    elif shape_of(weight)[1] == 1:
        # Depthwise: the filters of a channel (one, or several that stay neighbours) move with it.
        plan.reorder_filters(node, _spread(order, shape_of(weight)[0] // groups))
    else:
        raise _NotFree(f"{node.name} reads it in {groups} groups")


def _linear(node: Node, plan: _Plan) -> None:
    plan.reorder_constant(node, arguments(node)["weight"], 1, _order_of_input(node, plan))


def _order_of_input(node: Node, plan: _Plan) -> np.ndarray:
    """The order of what a convolution or linear layer reads, if it reads nothing else that is reordered."""
    given = arguments(node)
    if given["residual"] in plan.carried:
        raise _NotFree(f"{node.name} adds it to another output")
    if given["weight"] in plan.carried or given["bias"] in plan.carried:
        raise _NotFree(f"{node.name} computes its weights from it")
    return plan.carried[given["x"]]


def _channelwise(node: Node, plan: _Plan) -> None:
    plan.carried[node] = plan.carried[node.all_input_nodes[0]]


def _elementwise(node: Node, plan: _Plan) -> None:
    shape = shape_of(node)
    orders = [plan.carried[operand] for operand in node.all_input_nodes if operand in plan.carried]
    for operand in node.all_input_nodes:
        size = shape_of(operand)
        axis = 1 - (len(shape) - len(size))
        if operand in plan.carried:
            if axis != 1 or len(orders[0]) != shape[1] or not np.array_equal(plan.carried[operand], orders[0]):
                raise _NotFree(f"{node.name} combines channels of different order")
        elif axis >= 0 and size[axis] != 1:
            if operand.op != "get_attr":
                raise _NotFree(f"{node.name} combines it with {operand.name}")
            plan.reorder_constant(node, operand, axis, orders[0])
    plan.carried[node] = orders[0]


def _reshape(node: Node, plan: _Plan) -> None:
    x, count = node.all_input_nodes[0], flattened(node)
    if count is None:
        raise _NotFree(f"{node.name} reshapes it from {list(shape_of(x))} to {list(shape_of(node))}")
    plan.carried[node] = _spread(plan.carried[x], count)


def _slice(node: Node, plan: _Plan) -> None:
    x = node.all_input_nodes[0]
    if arguments(node)["dim"] % len(shape_of(x)) == 1:
        raise _NotFree(f"{node.name} takes a part of its channels")
    _channelwise(node, plan)


def _pad(node: Node, plan: _Plan) -> None:
    x = node.all_input_nodes[0]
    if shape_of(x)[1] != shape_of(node)[1]:
        raise _NotFree(f"{node.name} pads its channels")
    _channelwise(node, plan)


def _needs_order(node: Node, plan: _Plan) -> None:
    raise _NotFree("it is an output of the model" if node.op == "output" else f"{node.name} needs its channels in order")


def _spread(order: np.ndarray, count: int) -> np.ndarray:
    """The order of channels that each became ``count`` neighbours."""
    return (order[:, None] * count + np.arange(count)).ravel()


_RULES: dict[Any, Callable[[Node, _Plan], None]] = {
    CONV2D: _convolution,
    LINEAR: _linear,
    POOL2D: _channelwise,
    RESIZE2D: _channelwise,
    ELEMENTWISE: _elementwise,
    RESHAPE: _reshape,
    SLICE: _slice,
    PAD: _pad,
}
