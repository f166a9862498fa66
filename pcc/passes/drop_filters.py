"""drop-filters: filters that contribute nothing disappear, with the channels they feed (Ma et al., 2019, call it unused path removal).

A filter of zeros without a bias, or with one that the activation cuts to zero, goes, and so does one that is read with weights of zero only, through
shortcuts, concatenations and depthwise convolutions, until nothing more follows. Exact: a dead filter that emits a constant (its bias, a sigmoid's 1/2)
stays, and the layer says so.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import Dropped, Skipped, Structure, annotate, annotation, forget
from pcc.ir.graph import arguments, constant, finish, infer_all, layer_name, shape_of
from pcc.ir.ops import CONV2D, ELEMENTWISE, LINEAR, RESHAPE
from pcc.passes.channel_use import ChannelUse
from pcc.passes.operands import change_operand, set_argument, set_constant, share_constants


@dataclass(frozen=True)
class DropFilters:
    """Takes away filters that nobody needs, and the channels they feed."""

    name: ClassVar[str] = "drop-filters"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        use, modified = ChannelUse(graph_module), False
        while not use.everything:
            for node in list(graph_module.graph.nodes):
                _thin(node, use.needed)
            infer_all(graph_module)
            use, modified = ChannelUse(graph_module), True
        for node in graph_module.graph.nodes:
            if node.target in (CONV2D, LINEAR) and (reason := _why_dead_filters_stay(node, use)):
                annotate(node, Skipped(self.name, reason))
        if modified:
            share_constants(graph_module)
            finish(graph_module)
        return PassResult(graph_module, modified)


def _thin(node: Node, needed: dict[Node, np.ndarray]) -> None:
    """Takes from a node's constants and sizes the channels that go."""
    kept = needed.get(node)
    if node.target in (CONV2D, LINEAR):
        _thin_layer(node, needed)
    elif kept is None or kept.all():
        return
    elif node.target is ELEMENTWISE:
        for operand in dict.fromkeys(arguments(node)["xs"]):
            axis = 1 - (len(shape_of(node)) - len(shape_of(operand)))
            if operand.op == "get_attr" and axis >= 0 and shape_of(operand)[axis] == len(kept) > 1:
                change_operand(node, operand, _part(constant(operand), axis, kept))
    elif node.target is RESHAPE:
        batch, _, *rest = shape_of(node)
        set_argument(node, "shape", [batch, int(kept.sum()), *rest])


def _thin_layer(node: Node, needed: dict[Node, np.ndarray]) -> None:
    given = arguments(node)
    filters, channels = needed[node], needed[given["x"]]
    if filters.all() and channels.all():
        return
    weight = _part(constant(given["weight"]), 0, filters)
    if given.get("groups", 1) == 1:
        weight = _part(weight, 1, channels)
    else:
        set_argument(node, "groups", int(channels.sum()))
    set_constant(node, "weight", given["weight"], weight, f"{layer_name(node)}.weight")
    if given["bias"] is not None:
        set_constant(node, "bias", given["bias"], _part(constant(given["bias"]), 0, filters), f"{layer_name(node)}.bias")
    before = annotation(node, Dropped) or Dropped(0, 0)
    annotate(node, Dropped(before.filters + int((~filters).sum()), before.channels + int((~channels).sum())))
    forget(node, Structure)


def _part(value: torch.Tensor, axis: int, kept: np.ndarray) -> torch.Tensor:
    return value.index_select(axis, torch.from_numpy(np.flatnonzero(kept)))


def _why_dead_filters_stay(node: Node, use: ChannelUse) -> str | None:
    given = arguments(node)
    if given["weight"].op != "get_attr":
        return None
    dead = ~constant(given["weight"]).flatten(1).any(dim=1).numpy()
    if not dead.any():
        return None
    count = f"{int(dead.sum())} of {len(dead)} filters are dead"
    if not _emits_zero(node, use)[dead].all():
        return f"{count}, but their bias or activation makes them constants"
    return f"{count}, but their channels go with others that are needed"


def _emits_zero(layer: Node, use: ChannelUse) -> np.ndarray:
    """Filters whose channels are zero, at once or after the elementwise operations that read them."""
    behind = [use.zero(user) for user in layer.users if user.target is ELEMENTWISE and len(use.zero(user)) == len(use.zero(layer))]
    return use.zero(layer) | np.all(behind, axis=0) if behind else use.zero(layer)
