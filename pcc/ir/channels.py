"""The channel-dependency graph: which channels of a network stay, go or move as one.

Every filter of a convolution or linear layer makes a channel, which has a *label*. Labels are followed through the
graph: what moves elements moves their labels (splits, concatenations, flattening, channel and pixel shuffles),
depthwise convolutions and what works on each element keep them. Where channels meet (a shortcut is added, a convolution
reads what a shuffle brought together) their labels are tied. Labels that ties connect are one *decision*, a connected
component of the graph of ties (`networkx`). What reads channels in a way that is not understood fixes them, with a
reason.

The labels of a value are an int32 array of its rank that broadcasts to its shape: (1, C, 1, 1) for feature maps. Label
0 is of all that is fixed anyway.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import networkx as nx
import numpy as np
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from pcc.ir.graph import arguments, shape_of
from pcc.ir.moves import MOVES, bounds, move, pad
from pcc.ir.ops import BATCH_NORM, CONV2D, CONVERT, ELEMENTWISE, LINEAR, PAD, POOL2D, RESIZE2D, SLICE

Labels = np.ndarray

LAYERS = (CONV2D, LINEAR)
"""What reads channels with weights, and makes new ones."""


class Flow(ABC):
    """Follows labels through a graph. The rules call the methods below where they find something out."""

    def __init__(self) -> None:
        self.labels: dict[Node, Labels] = {}

    def follow(self, graph: Graph) -> None:
        """Gives each value its labels."""
        for node in graph.nodes:
            if node.op == "output":
                for x in node.all_input_nodes:
                    self.fix(self.labels[x], "it is an output of the model", x)
            else:
                rule = RULES.get(node.target, _opaque) if node.op == "call_function" and _is_tensor(node) else _opaque
                self.labels[node] = rule(node, self)

    @abstractmethod
    def make(self, layer: Node) -> Labels:
        """The labels of the channels that a layer makes, (1, filters, ...)."""

    @abstractmethod
    def tie(self, node: Node, left: Labels, right: Labels) -> None:
        """Elements of ``left`` and ``right``, which broadcast, meet in a node."""

    @abstractmethod
    def read(self, layer: Node, channels: Labels) -> None:
        """A layer reads channels, (1, C, ...), with constant weights."""

    @abstractmethod
    def fix(self, labels: Labels, reason: str, value: Node) -> None:
        """The channels of a value cannot go or move."""

    def channels(self, node: Node, x: Node) -> Labels:
        """The labels of the channels (dimension 1) of ``x``, which a node treats as wholes: (1, C, ...)."""
        labels = self.labels[x]
        whole = labels[:1]
        for axis in range(2, labels.ndim):
            whole = whole.take([0], axis)
        self.tie(node, labels, whole)
        return np.broadcast_to(whole, (1, shape_of(x)[1], *whole.shape[2:]))


@dataclass(frozen=True)
class Fixed:
    """Channels that cannot go or move, and why."""

    labels: Labels
    reason: str


class ChannelGraph(Flow):
    """The channel-dependency graph of a graph of canonical operators, with batch norms or without."""

    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__()
        self.ties = nx.Graph()
        """Labels that are tied to others, and their ties."""
        self.labels_of: dict[Node, Labels] = {}
        """The labels of the filters of each layer, (filters,); depthwise convolutions have those of their channels and
        are not here."""
        self.readers: dict[Node, Labels] = {}
        """Convolutions and linear layers, with the labels of the channels they read, (C,); depthwise convolutions are
        not here."""
        self.fixed: list[Fixed] = []
        self.count = 1
        """How many labels there are."""
        self.follow(graph_module.graph)
        self.decision = np.arange(self.count)
        """The decision that each label belongs to: the smallest label of it."""
        for component in nx.connected_components(self.ties):
            self.decision[list(component)] = min(component)

    def decisions(self, node: Node) -> np.ndarray:
        """The decisions of a value's elements, an array as its labels."""
        return self.decision[self.labels[node]]

    def channel_decisions(self, node: Node) -> np.ndarray:
        """The decision of each channel (dimension 1) of a value whose channels are read as wholes, (C,)."""
        decisions = self.decisions(node)[0]
        return np.broadcast_to(decisions.reshape(len(decisions), -1)[:, 0], shape_of(node)[1])

    def why_bound(self, layer: Node) -> str | None:
        """Why filters of a layer cannot go, or move, alone; None if they can."""
        if layer not in self.labels_of:
            return "its weights are computed"
        decisions = self.decision[self.labels_of[layer]]
        for fixed in self.fixed:
            if np.isin(self.decision[fixed.labels], decisions).any():
                return fixed.reason
        if (decisions == 0).any():
            return "its channels are added to some that stay as they are"
        for other, labels in self.labels_of.items():
            if other is not layer and np.isin(self.decision[labels], decisions).any():
                return f"its channels are added to those of {other.name}"
        return "some of its channels are read as one" if len(np.unique(decisions)) < len(decisions) else None

    def make(self, layer: Node) -> Labels:
        filters, rank = shape_of(layer)[1], len(shape_of(layer))
        self.labels_of[layer] = np.arange(self.count, self.count + filters, dtype=np.int32)
        self.count += filters
        return self.labels_of[layer].reshape(1, -1, *(1,) * (rank - 2))

    def tie(self, node: Node, left: Labels, right: Labels) -> None:
        pairs = np.stack([each[left != right] for each in np.broadcast_arrays(left, right)], axis=1)
        self.ties.add_edges_from(np.unique(pairs, axis=0).tolist())

    def read(self, layer: Node, channels: Labels) -> None:
        self.readers[layer] = channels.ravel()

    def fix(self, labels: Labels, reason: str, value: Node) -> None:
        self.fixed.append(Fixed(np.unique(labels), reason))


def is_constant_layer(node: Node) -> bool:
    """Whether a convolution or linear layer has constant weights. Other calls may read them, too: each can have its own
    copy."""
    args = arguments(node)
    constants = (args["weight"], args["bias"], args["parameter"])
    return all(parameter is None or parameter.op == "get_attr" for parameter in constants)


def is_depthwise(node: Node) -> bool:
    """Whether each filter of a layer reads one channel of several."""
    args = arguments(node)
    return args.get("groups", 1) > 1 and shape_of(args["weight"])[1] == 1


def flattened(reshape: Node) -> int | None:
    """How many neighbours a reshape makes of each channel: 1 where channels stay a dimension, more where what is behind
    them joins them; else None."""
    before, after = shape_of(reshape.all_input_nodes[0]), shape_of(reshape)
    if (
        min(len(before), len(after)) < 2
        or 0 in before
        or before[0] != after[0]
        or after[1] not in (before[1], prod(before[1:]))
    ):
        return None
    return after[1] // before[1]


def _is_tensor(node: Node) -> bool:
    """Whether a node and what it reads are tensors with elements."""
    return all(
        isinstance(value := x.meta.get("val"), Tensor) and 0 not in value.shape for x in (node, *node.all_input_nodes)
    )


# ---- rules: what an operator does with labels ----


def _opaque(node: Node, flow: Flow) -> Labels:
    """Inputs, constants, and operators that are not understood: they need all they read as it is."""
    for x in node.all_input_nodes:
        flow.fix(flow.labels[x], f"{node.name} needs its channels in order", x)
    return np.zeros((1,) * getattr(node.meta.get("val"), "ndim", 0), dtype=np.int32)


def _layer(node: Node, flow: Flow) -> Labels:
    args = arguments(node)
    if not is_constant_layer(node):
        return _opaque(node, flow)
    channels = flow.channels(node, args["x"])
    if is_depthwise(node):
        labels = np.repeat(channels, shape_of(node)[1] // channels.shape[1], axis=1)
    else:
        flow.read(node, channels)
        labels = flow.make(node)
    if args["residual"] is not None:
        flow.tie(node, flow.labels[args["residual"]], labels)
    return labels


def _channelwise(node: Node, flow: Flow) -> Labels:
    if any(x.op != "get_attr" for x in node.all_input_nodes[1:]):
        return _opaque(node, flow)
    return flow.channels(node, node.all_input_nodes[0])


def _elementwise(node: Node, flow: Flow) -> Labels:
    shape = shape_of(node)
    operands = {
        x: flow.labels[x].reshape((1,) * (len(shape) - flow.labels[x].ndim) + flow.labels[x].shape)
        for x in computed_operands(node)
    }
    varying = [axis for axis in range(len(shape)) if any(labels.shape[axis] > 1 for labels in operands.values())]
    alike = [
        x
        for x in operands
        if all(size == shape[axis] for axis, size in enumerate(_aligned(x, len(shape))) if axis in varying)
    ]
    for x in operands:
        if x not in alike:  # it has one channel, say, for all of another's
            flow.fix(flow.labels[x], f"{node.name} combines it with all channels of another", x)
    if not alike:
        return np.zeros((1,) * len(shape), dtype=np.int32)
    first, *others = alike
    for x in others:
        flow.tie(node, operands[first], operands[x])
    return np.broadcast_to(operands[first], np.broadcast_shapes(*(operands[x].shape for x in alike)))


def computed_operands(elementwise: Node) -> list[Node]:
    """What an elementwise operation reads but constants."""
    return [x for x in elementwise.all_input_nodes if x.op != "get_attr"]


def _aligned(x: Node, rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape_of(x))) + shape_of(x)


def _move(node: Node, flow: Flow) -> Labels:
    return move(node, flow.labels)


def _slice(node: Node, flow: Flow) -> Labels:
    x = node.all_input_nodes[0]
    dim, taken = bounds(node)
    if taken.step != 1 and flow.labels[x].shape[dim] > 1:
        flow.fix(flow.labels[x], f"{node.name} takes every {taken.step}th of its channels", x)
    return move(node, flow.labels)


def _pad(node: Node, flow: Flow) -> Labels:
    return pad(node, flow.labels[node.all_input_nodes[0]], 0)


RULES: dict[Any, Callable[[Node, Flow], Labels]] = {
    CONV2D: _layer,
    LINEAR: _layer,
    POOL2D: _channelwise,
    RESIZE2D: _channelwise,
    BATCH_NORM: _channelwise,
    ELEMENTWISE: _elementwise,
    CONVERT: _elementwise,
    PAD: _pad,
    **dict.fromkeys(MOVES, _move),
    SLICE: _slice,
}
