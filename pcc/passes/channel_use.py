"""Which channels of a graph's values nobody needs: those that are zero wherever they are read, and those that are read with weights of zero.

A filter of zeros gives a number, its bias, which the activation behind it may make zero; so the numbers that channels are known to be are followed.

Channels are dimension 1. What works on each channel alone (depthwise convolutions, pooling, elementwise operations, additions of a shortcut) ties the
channels of its operands and of its result together: they stay or go as one. So do the parts of a concatenation and the features that a map is flattened
to. Readers that are not understood need all channels, and so do constants.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from pcc.ir.activation import Activation
from pcc.ir.graph import arguments, constant, shape_of
from pcc.ir.ops import CONCAT, CONV2D, ELEMENTWISE, LINEAR, PAD, POOL2D, RESHAPE, RESIZE2D, SLICE
from pcc.sparsity.detect import detect_structure


class ChannelUse:
    """What is known about the channels of every value of a graph; arrays are bool (C,)."""

    def __init__(self, graph_module: GraphModule) -> None:
        self.number: dict[Node, np.ndarray] = {}
        """What channels are whatever the input is, fp32; NaN where that depends on the input, or differs inside the channel."""
        self.needed: dict[Node, np.ndarray] = {}
        """Channels that have to stay."""
        self._ties: list[tuple[Node, np.ndarray, Node, np.ndarray]] = []
        for node in graph_module.graph.nodes:
            if node.op != "output" and len(shape_of(node)) > 1:
                self.number[node] = np.full(shape_of(node)[1], np.nan, np.float32)
                self.needed[node] = np.zeros(shape_of(node)[1], bool)
            understood = node in self.needed and 0 not in shape_of(node)
            (_RULES.get(node.target, _opaque) if understood else _opaque)(node, self)
        self._settle()

    @property
    def everything(self) -> bool:
        """Whether every channel is needed."""
        return all(needed.all() for needed in self.needed.values())

    def zero(self, x: Node) -> np.ndarray:
        """Channels that are zero whatever the input is."""
        return self.number[x] == 0

    def read(self, x: Node, ignored: np.ndarray) -> None:
        """Something reads ``x`` but for the channels ``ignored``."""
        if x in self.needed:
            self.needed[x] |= ~(self.zero(x) | ignored)

    def need(self, x: Node) -> None:
        if x in self.needed:
            self.needed[x][:] = True

    def tie(self, x: Node, node: Node, own: np.ndarray | None = None, of: np.ndarray | None = None) -> None:
        """Channel ``own[i]`` of ``x`` goes with channel ``of[i]`` of ``node``."""
        everything = np.arange(len(self.needed[x]))
        self._ties.append((x, everything if own is None else own, node, everything if of is None else of))

    def _settle(self) -> None:
        """What is tied to something needed is needed. Every value keeps a channel, and filters that share their connections keep each other."""
        before = -1
        while before != (before := sum(int(needed.sum()) for needed in self.needed.values())):
            for ties in (self._ties, reversed(self._ties)):
                for x, own, node, of in ties:
                    both = np.zeros(len(self.needed[node]), bool)
                    np.logical_or.at(both, of, self.needed[x][own])
                    self.needed[node] |= both
                    np.logical_or.at(self.needed[x], own, self.needed[node][of])
            for node, needed in self.needed.items():
                if not needed.any():
                    needed[:1] = True
                elif node.target is CONV2D and not needed.all():
                    _keep_whole_groups(node, needed)


def is_constant_layer(node: Node) -> bool:
    """Whether a convolution or linear layer has constant weights. Other calls may read them, too: each can have its own copy."""
    given = arguments(node)
    return all(parameter is None or parameter.op == "get_attr" for parameter in (given["weight"], given["bias"]))


def flattened(reshape: Node) -> int | None:
    """How many neighbours a reshape makes of each channel: 1 where channels stay a dimension, more where what is behind them joins them; else None."""
    before, after = shape_of(reshape.all_input_nodes[0]), shape_of(reshape)
    if min(len(before), len(after)) < 2 or 0 in before or before[0] != after[0] or after[1] not in (before[1], prod(before[1:])):
        return None
    return after[1] // before[1]


def _keep_whole_groups(conv: Node, needed: np.ndarray) -> None:
    """Groups of 2 or 4 filters with the same connections run faster than filters alone: of each such set a multiple stays."""
    weight = constant(arguments(conv)["weight"]).numpy()
    structure = detect_structure(weight, arguments(conv)["groups"])
    if isinstance(structure, str) or structure.share == 1:
        return
    _, like = np.unique((weight != 0).reshape(len(weight), -1), axis=0, return_inverse=True)
    for one in np.unique(like[needed]):
        members = np.flatnonzero(like == one)
        spare = members[~needed[members]]
        needed[spare[: -int(needed[members].sum()) % structure.share]] = True


# ---- rules: what an operator does with channels ----


def _opaque(node: Node, use: ChannelUse) -> None:
    for operand in node.all_input_nodes:
        use.need(operand)
    use.need(node)


def _layer(node: Node, use: ChannelUse) -> None:
    """A convolution or a linear layer."""
    given = arguments(node)
    if not is_constant_layer(node):
        return _opaque(node, use)
    x, residual, groups = given["x"], given["residual"], given.get("groups", 1)
    connections = constant(given["weight"]).flatten(2).any(2).numpy() if node.target is CONV2D else (constant(given["weight"]) != 0).numpy()
    if groups == 1:
        use.read(x, np.logical_not(connections.any(axis=0)))
        dead = np.logical_not((connections & ~use.zero(x)).any(axis=1))
    elif connections.shape[1] == 1:
        source = np.repeat(np.arange(groups), len(connections) // groups)
        use.tie(x, node, source, np.arange(len(connections)))
        dead = ~connections[:, 0] | use.zero(x)[source]
    else:  # every group would have to lose as many
        use.need(x)
        use.need(node)
        dead = np.logical_not(connections.any(axis=1))
    number = np.zeros(len(connections), np.float32) if given["bias"] is None else constant(given["bias"]).numpy()
    if residual is not None:
        use.tie(residual, node)
        number = number + use.number[residual]
    emitted = Activation.parse(given["activation"])(torch.from_numpy(number)).numpy()
    use.number[node] = np.where(dead & ~np.isnan(number), emitted, np.nan)
    return None


def _elementwise(node: Node, use: ChannelUse) -> None:
    given, shape = arguments(node), shape_of(node)
    values = [operand for operand in given["xs"] if operand.op != "get_attr"]
    alike = [operand for operand in values if operand in use.number and len(shape_of(operand)) == len(shape) and shape_of(operand)[1] == shape[1]]
    if not alike:
        return _opaque(node, use)
    for operand in values:
        use.tie(operand, node) if operand in alike else use.need(operand)
    if len(alike) == len(values):
        use.number[node] = _applied(node, use)
    return None


def _applied(node: Node, use: ChannelUse) -> np.ndarray:
    """What an elementwise operation makes of channels whose numbers are known."""
    given, rank = arguments(node), len(shape_of(node))
    operands = [constant(x) if x.op == "get_attr" else torch.from_numpy(use.number[x]).reshape(1, -1, *(1,) * (rank - 2)) for x in given["xs"]]
    everywhere = node.target(operands, given["expression"]).transpose(0, 1).flatten(1).numpy()  # type: ignore[operator]
    known = np.all([~np.isnan(use.number[x]) for x in given["xs"] if x.op != "get_attr"], axis=0)
    alike = (everywhere == everywhere[:, :1]).all(axis=1)
    return np.where(known & alike, everywhere[:, 0], np.nan).astype(np.float32)


def _pool(node: Node, use: ChannelUse) -> None:
    """The largest of equal numbers is that number; a mean may count zeros at the border, and is rounded."""
    _channelwise(node, use)
    if arguments(node)["mode"] != "max":
        _only_zeros(node, use)


def _resize(node: Node, use: ChannelUse) -> None:
    _channelwise(node, use)
    _only_zeros(node, use)


def _only_zeros(node: Node, use: ChannelUse) -> None:
    use.number[node][~use.zero(node)] = np.nan


def _channelwise(node: Node, use: ChannelUse) -> None:
    x = node.all_input_nodes[0]
    use.tie(x, node)
    use.number[node] = use.number[x].copy()


def _pad(node: Node, use: ChannelUse) -> None:
    if shape_of(node)[1] != shape_of(node.all_input_nodes[0])[1]:
        return _opaque(node, use)
    _channelwise(node, use)
    use.number[node][use.number[node] != arguments(node)["value"]] = np.nan
    return None


def _slice(node: Node, use: ChannelUse) -> None:
    (_opaque if arguments(node)["dim"] % len(shape_of(node)) == 1 else _channelwise)(node, use)


def _reshape(node: Node, use: ChannelUse) -> None:
    x, count = node.all_input_nodes[0], flattened(node)
    if count is None:
        return _opaque(node, use)
    source = np.repeat(np.arange(shape_of(x)[1]), count)
    use.tie(x, node, source, np.arange(len(source)))
    use.number[node] = use.number[x][source]
    return None


def _concat(node: Node, use: ChannelUse) -> None:
    given = arguments(node)
    if given["dim"] % len(shape_of(node)) != 1 or any(x not in use.number for x in given["xs"]):
        return _opaque(node, use)
    start = 0
    for x in given["xs"]:
        count = shape_of(x)[1]
        use.tie(x, node, None, np.arange(start, start + count))
        start += count
    use.number[node] = np.concatenate([use.number[x] for x in given["xs"]])
    return None


_RULES: dict[Any, Callable[[Node, ChannelUse], None]] = {
    CONV2D: _layer,
    LINEAR: _layer,
    POOL2D: _pool,
    RESIZE2D: _resize,
    ELEMENTWISE: _elementwise,
    RESHAPE: _reshape,
    SLICE: _slice,
    PAD: _pad,
    CONCAT: _concat,
}
