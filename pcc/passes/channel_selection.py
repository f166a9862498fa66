"""Carries out a choice of channels, or an order of them, in a whole graph: every constant and every size that has to do
with them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node

from pcc.ir.channels import LAYERS, is_depthwise
from pcc.ir.graph import arguments, constant, layer_name, shape_of
from pcc.ir.moves import bounds
from pcc.ir.ops import BATCH_NORM, ELEMENTWISE, EXPAND, RESHAPE, SLICE
from pcc.passes.operands import change_operand, set_argument, set_constant

Selection = Mapping[Node, Mapping[int, np.ndarray]]
"""For values that change, the dimensions that do: int64, which old place stands in each new one."""


def select_channels(graph: Graph, selection: Selection) -> None:
    """Rewrites constants and sizes of all nodes; shapes are to be inferred anew afterwards (`pcc.ir.graph.infer_all`)
    if channels are fewer."""
    for node in list(graph.nodes):
        if (
            node.op == "call_function"
            and node.target in _RULES
            and (node in selection or any(x in selection for x in node.all_input_nodes))
        ):
            _RULES[node.target](node, selection)


def take(value: Tensor, axis: int, index: np.ndarray) -> Tensor:
    """Slices of a value along an axis. Those that stay neighbours move together: one copy for each run, not for
    each."""
    if np.array_equal(index, np.arange(value.shape[axis])):
        return value
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    run = int(np.gcd.reduce(np.concatenate([breaks, index[:1], index[breaks], [len(index), value.shape[axis]]])))
    by_runs = value.reshape(*value.shape[:axis], -1, run, *value.shape[axis + 1 :])
    return by_runs.index_select(axis, torch.from_numpy(index[::run] // run)).reshape(
        *value.shape[:axis], len(index), *value.shape[axis + 1 :]
    )


def _chosen(node: Node, axis: int, selection: Selection) -> np.ndarray:
    return selection.get(node, {}).get(axis, np.arange(shape_of(node)[axis]))


def _layer(node: Node, selection: Selection) -> None:
    args = arguments(node)
    filters, channels = _chosen(node, 1, selection), _chosen(args["x"], 1, selection)
    weight, groups = constant(args["weight"]), args.get("groups", 1)
    if groups == 1:
        changed = take(take(weight, 0, filters), 1, channels)
    elif is_depthwise(node):
        changed, groups = take(weight, 0, filters), len(channels)
    else:
        changed, groups = _of_groups(weight, groups, filters, channels)
    if "groups" in args and groups != args["groups"]:
        set_argument(node, "groups", groups)
    set_constant(node, "weight", args["weight"], changed, f"{layer_name(node)}.weight")
    for name in ("bias", "parameter"):
        if args[name] is not None:
            set_constant(node, name, args[name], take(constant(args[name]), 0, filters), f"{layer_name(node)}.{name}")


def _of_groups(weight: Tensor, groups: int, filters: np.ndarray, channels: np.ndarray) -> tuple[Tensor, int]:
    """The weight of a grouped convolution, whose groups have the same numbers of filters and channels again, and how
    many groups are left."""
    group_of_filter, group_of_channel = filters // (len(weight) // groups), channels // weight.shape[1]
    blocks = []
    for group in dict.fromkeys(group_of_filter.tolist()):
        columns = channels[group_of_channel == group] - group * weight.shape[1]
        blocks.append(take(take(weight, 0, filters[group_of_filter == group]), 1, columns))
    return torch.cat(blocks), len(blocks)


def _elementwise(node: Node, selection: Selection) -> None:
    rank = len(shape_of(node))
    for x in dict.fromkeys(x for x in node.all_input_nodes if x.op == "get_attr"):
        value = constant(x)
        for dim, index in selection.get(node, {}).items():
            axis = dim - (rank - value.dim())
            if axis >= 0 and value.shape[axis] == shape_of(node)[dim] > 1:
                value = take(value, axis, index)
        if value.shape != shape_of(x) or not value.equal(constant(x)):
            change_operand(node, x, value)


def _batch_norm(node: Node, selection: Selection) -> None:
    args = arguments(node)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if args[name] is not None:
            set_constant(node, name, args[name], take(constant(args[name]), 0, _chosen(node, 1, selection)), "")


def _sizes(argument: str) -> Callable[[Node, Selection], None]:
    """Of an operator that has the shape of its result among its arguments."""

    def change(node: Node, selection: Selection) -> None:
        set_argument(node, argument, [len(_chosen(node, axis, selection)) for axis in range(len(shape_of(node)))])

    return change


def _slice(node: Node, selection: Selection) -> None:
    dim, taken = bounds(node)
    start = int((_chosen(node.all_input_nodes[0], dim, selection) < taken.start).sum())
    if taken.step == 1:
        set_argument(node, "start", start)
        set_argument(node, "end", start + len(_chosen(node, dim, selection)))


_RULES: dict[Any, Callable[[Node, Selection], None]] = {
    **dict.fromkeys(LAYERS, _layer),
    ELEMENTWISE: _elementwise,
    BATCH_NORM: _batch_norm,
    RESHAPE: _sizes("shape"),
    EXPAND: _sizes("size"),
    SLICE: _slice,
}
