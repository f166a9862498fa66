"""Which channels of a graph's values nobody needs: those that are zero wherever they are read, and those that are read with weights of zero.

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
from pcc.passes.operands import users_of
from pcc.sparsity.detect import detect_structure


class ChannelUse:
    """What is known about the channels of every value of a graph; arrays are bool (C,)."""

    def __init__(self, graph_module: GraphModule) -> None:
        self.zero: dict[Node, np.ndarray] = {}
        """Channels that are zero whatever the input is."""
        self.needed: dict[Node, np.ndarray] = {}
        """Channels that have to stay."""
        self._ties: list[tuple[Node, np.ndarray, Node, np.ndarray]] = []
        for node in graph_module.graph.nodes:
            if node.op != "output" and len(shape_of(node)) > 1:
                self.zero[node], self.needed[node] = np.zeros((2, shape_of(node)[1]), bool)
            (_RULES.get(node.target, _opaque) if node in self.needed else _opaque)(node, self)
        self._settle()

    @property
    def everything(self) -> bool:
        """Whether every channel is needed."""
        return all(needed.all() for needed in self.needed.values())

    def read(self, x: Node, ignored: np.ndarray) -> None:
        """Something reads ``x`` but for the channels ``ignored``."""
        if x in self.needed:
            self.needed[x] |= ~(self.zero[x] | ignored)

    def need(self, x: Node) -> None:
        if x in self.needed:
            self.needed[x][:] = True

    def tie(self, x: Node, node: Node, own: np.ndarray | None = None, of: np.ndarray | None = None) -> None:
        """Channel ``own[i]`` of ``x`` goes with channel ``of[i]`` of ``node``."""
        everything = np.arange(len(self.needed[x]))
        self._ties.append((x, everything if own is None else own, node, everything if of is None else of))

    def _settle(self) -> None:
        """What is tied to something needed is needed. Every value keeps a channel, and filters that share their kernels keep each other."""
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
                    needed[0] = True
                elif node.target is CONV2D and not needed.all():
                    _keep_whole_groups(node, needed)


def is_constant_layer(node: Node) -> bool:
    """Whether a convolution or linear layer has constant weights of its own, that no other layer reads."""
    given = arguments(node)
    parameters = [given["weight"], *([given["bias"]] if given["bias"] is not None else [])]
    return all(one.op == "get_attr" and users_of(one) == 1 for one in parameters)


def flattened(reshape: Node) -> int | None:
    """How many neighbours a reshape makes of each channel: 1 where channels stay a dimension, more where what is behind them joins them; else None."""
    before, after = shape_of(reshape.all_input_nodes[0]), shape_of(reshape)
    if min(len(before), len(after)) < 2 or before[0] != after[0] or after[1] not in (before[1], prod(before[1:])):
        return None
    return after[1] // before[1]


def _keep_whole_groups(conv: Node, needed: np.ndarray) -> None:
    """Groups of 2 or 4 filters with the same kernels run faster than filters alone: of each such set a multiple stays."""
    weight = constant(arguments(conv)["weight"]).numpy()
    structure = detect_structure(weight, arguments(conv)["groups"])
    if isinstance(structure, str) or structure.group == 1:
        return
    _, like = np.unique((weight != 0).reshape(len(weight), -1), axis=0, return_inverse=True)
    for one in np.unique(like[needed]):
        members = np.flatnonzero(like == one)
        spare = members[~needed[members]]
        needed[spare[: -int(needed[members].sum()) % structure.group]] = True


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
    links = constant(given["weight"]).flatten(2).any(2).numpy() if node.target is CONV2D else (constant(given["weight"]) != 0).numpy()
    if groups == 1:
        use.read(x, np.logical_not(links.any(axis=0)))
        zero = np.logical_not((links & ~use.zero[x]).any(axis=1))
    elif links.shape[1] == 1:
        source = np.repeat(np.arange(groups), len(links) // groups)
        use.tie(x, node, source, np.arange(len(links)))
        zero = ~links[:, 0] | use.zero[x][source]
    else:  # every group would have to lose as many
        use.need(x)
        use.need(node)
        zero = np.logical_not(links.any(axis=1))
    if given["bias"] is not None:
        zero = zero & (constant(given["bias"]) == 0).numpy()
    if residual is not None:
        use.tie(residual, node)
        zero = zero & use.zero[residual]
    if Activation.parse(given["activation"])(torch.zeros(1)) == 0:
        use.zero[node] = zero


def _elementwise(node: Node, use: ChannelUse) -> None:
    given, shape = arguments(node), shape_of(node)
    values = [operand for operand in given["xs"] if operand.op != "get_attr"]
    alike = [operand for operand in values if operand in use.zero and len(shape_of(operand)) == len(shape) and shape_of(operand)[1] == shape[1]]
    if not alike:
        return _opaque(node, use)
    for operand in values:
        use.tie(operand, node) if operand in alike else use.need(operand)
    if len(alike) == len(values):
        at_zero = node.target([constant(x) if x.op == "get_attr" else torch.zeros(shape_of(x)) for x in given["xs"]], given["expression"])  # type: ignore[operator]
        use.zero[node] = (at_zero == 0).transpose(0, 1).flatten(1).all(1).numpy() & np.all([use.zero[one] for one in values], axis=0)
    return None


def _channelwise(node: Node, use: ChannelUse) -> None:
    x = node.all_input_nodes[0]
    use.tie(x, node)
    use.zero[node] = use.zero[x].copy()


def _pad(node: Node, use: ChannelUse) -> None:
    if shape_of(node)[1] != shape_of(node.all_input_nodes[0])[1]:
        return _opaque(node, use)
    _channelwise(node, use)
    use.zero[node] &= arguments(node)["value"] == 0
    return None


def _slice(node: Node, use: ChannelUse) -> None:
    (_opaque if arguments(node)["dim"] % len(shape_of(node)) == 1 else _channelwise)(node, use)


def _reshape(node: Node, use: ChannelUse) -> None:
    x, count = node.all_input_nodes[0], flattened(node)
    if count is None:
        return _opaque(node, use)
    source = np.repeat(np.arange(shape_of(x)[1]), count)
    use.tie(x, node, source, np.arange(len(source)))
    use.zero[node] = use.zero[x][source]
    return None


def _concat(node: Node, use: ChannelUse) -> None:
    given = arguments(node)
    if given["dim"] % len(shape_of(node)) != 1 or any(x not in use.zero for x in given["xs"]):
        return _opaque(node, use)
    start = 0
    for x in given["xs"]:
        count = shape_of(x)[1]
        use.tie(x, node, None, np.arange(start, start + count))
        start += count
    use.zero[node] = np.concatenate([use.zero[x] for x in given["xs"]])
    return None


_RULES: dict[Any, Callable[[Node, ChannelUse], None]] = {
    CONV2D: _layer,
    LINEAR: _layer,
    POOL2D: _channelwise,
    RESIZE2D: _channelwise,
    ELEMENTWISE: _elementwise,
    RESHAPE: _reshape,
    SLICE: _slice,
    PAD: _pad,
    CONCAT: _concat,
}
