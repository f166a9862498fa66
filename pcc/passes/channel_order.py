"""Changing the order of a convolution's output channels for free: everything that reads them is reordered with them, at
compile time.

The order runs through the graph as labels do (`pcc.ir.channels`): through what treats channels alike, depthwise
convolutions, concatenations, padding and flattening, into the input channels of convolutions and linear layers. Where a
reader needs the channels as they are, there is a reason instead.
"""

import numpy as np
from torch.fx import Node

from pcc.ir.annotations import FilterOrder, annotate, annotation
from pcc.ir.channels import RULES, ChannelGraph, Flow, Labels, flattened
from pcc.ir.graph import arguments, shape_of
from pcc.ir.ops import CONV2D, RESHAPE
from pcc.passes.channel_selection import select_channels


def reorder_channels(channels: ChannelGraph, conv: Node, order: np.ndarray) -> str | None:
    """Reorders a convolution's filters and everything that reads its output; or says why that is not free, and changes
    nothing.

    ``order`` is int64 (C,): new channel ``i`` is old channel ``order[i]``. Reordered convolutions get, or update, their
    `FilterOrder`. The graph computes the same as before, and ``channels`` stays right: it is about places, not about
    what stands there.
    """
    try:
        moved = _Moved(channels, conv, order)
    except _NotFree as reason:
        return str(reason)
    selection = {node: _orders(channels.labels[node], labels) for node, labels in moved.labels.items()}
    select_channels(conv.graph, selection)
    for node, orders in selection.items():
        if node.target is CONV2D:
            before = annotation(node, FilterOrder)
            original = orders[1] if before is None else np.array(before.order)[orders[1]]
            annotate(node, FilterOrder(tuple(original.tolist())))
    return None


class _NotFree(Exception):
    """Why a node cannot have its input in another order."""


class _Moved(Flow):
    """Labels as they lie after the filters of one convolution moved, of the values that change. Raises `_NotFree`."""

    def __init__(self, channels: ChannelGraph, conv: Node, order: np.ndarray) -> None:
        super().__init__()
        self.before = channels
        if reason := channels.why_bound(conv):
            raise _NotFree(reason)
        original = channels.labels[conv]
        changed = {conv: original[:, order]}
        for node in list(conv.graph.nodes)[list(conv.graph.nodes).index(conv) + 1 :]:
            reads = [x for x in node.all_input_nodes if x in changed]
            if not reads:
                continue
            self.labels = {x: changed.get(x, channels.labels[x]) for x in node.all_input_nodes}
            if node.op == "output":
                raise _NotFree("it is an output of the model")
            if node.target is RESHAPE and flattened(node) is None:
                raise _NotFree(f"{node.name} reshapes it from {list(shape_of(reads[0]))} to {list(shape_of(node))}")
            labels = RULES[node.target](node, self) if node.target in RULES else self._needed(node, reads[0])
            if not np.array_equal(np.sort(labels, axis=None), np.sort(channels.labels[node], axis=None)):
                raise _NotFree(f"{node.name} takes a part of its channels")
            if not np.array_equal(labels, channels.labels[node]):
                changed[node] = labels
        self.labels = changed

    def make(self, layer: Node) -> Labels:
        return self.before.labels[layer]

    def tie(self, node: Node, left: Labels, right: Labels) -> None:
        decision = self.before.decision
        if (decision[left] != decision[right]).any():
            raise _NotFree(f"{node.name} combines channels of different order")

    def read(self, layer: Node, channels: Labels) -> None:
        groups = arguments(layer).get("groups", 1)
        now, before = (np.sort(labels.reshape(groups, -1), axis=1) for labels in (channels, self.before.readers[layer]))
        if not np.array_equal(now, before):
            raise _NotFree(f"{layer.name} reads it in {groups} groups")

    def fix(self, labels: Labels, reason: str, value: Node) -> None:
        if not np.array_equal(labels, self.before.labels[value]):
            raise _NotFree(reason)

    def _needed(self, node: Node, x: Node) -> Labels:
        raise _NotFree(f"{node.name} needs its channels in order")


def _orders(before: Labels, after: Labels) -> dict[int, np.ndarray]:
    """The order of each dimension along which labels moved: which old place stands in each new one."""
    orders = {}
    for axis, size in enumerate(before.shape):
        rows, moved = (np.moveaxis(labels, axis, 0).reshape(size, -1) for labels in (before, after))
        if size > 1 and not np.array_equal(rows, moved):
            _, kinds = np.unique(np.concatenate([rows, moved]), axis=0, return_inverse=True)
            old, new = (np.argsort(part, kind="stable") for part in np.split(kinds.ravel(), 2))
            orders[axis] = np.empty(size, dtype=np.int64)
            orders[axis][new] = old
    return orders
