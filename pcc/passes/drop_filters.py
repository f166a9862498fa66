"""drop-filters: filters that contribute nothing disappear, with the channels they feed (Ma et al., 2019, call it unused
path removal).

A filter that is read with weights of zero only goes, and so does a filter of zeros, through shortcuts, concatenations,
splits, shuffles, depthwise and grouped convolutions (`pcc.ir.channels`), until nothing more follows. What a filter of
zeros still emits (its bias, a batch norm's shift, a sigmoid's 1/2) is added to the biases of the layers that read it.
Exact: where a reader pads its input with zeros, it would read less of that number near the border, so the filter stays,
and the layer says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import Dropped, Skipped, annotate, annotation, forget
from pcc.ir.channels import LAYERS, ChannelGraph, is_constant_layer
from pcc.ir.graph import arguments, constant, finish, infer_all, layer_name, shape_of
from pcc.ir.ops import CONV2D, ELEMENTWISE
from pcc.passes.channel_numbers import (
    Numbers,
    Reading,
    channel_numbers,
    numbers_of_channels,
    offsets,
    pads,
    read_channels,
)
from pcc.passes.channel_selection import Selection, select_channels
from pcc.passes.operands import set_constant, share_constants
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.reorder import classes
from pcc.sparsity.structure import Structure


@dataclass(frozen=True)
class DropFilters:
    """Takes away filters that nobody needs, and the channels they feed."""

    name: ClassVar[str] = "drop-filters"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        modified = False
        while True:
            channels, numbers = ChannelGraph(graph_module), channel_numbers(graph_module)
            reading = {layer: read_channels(layer, numbers) for layer in channels.readers}
            needed = _needed(channels, reading)
            selection = _selection(channels, needed)
            if not selection:
                break
            _drop(graph_module, channels, reading, selection)
            modified = True
        for node in channels.labels_of:
            if reason := _why_dead_filters_stay(node, channels, numbers):
                annotate(node, Skipped(self.name, reason))
        if modified:
            share_constants(graph_module)
            finish(graph_module)
        return PassResult(graph_module, modified)


def feeders(graph_module: GraphModule) -> dict[Node, tuple[Node, ...]]:
    """The layers that lose a filter for each channel that a layer no longer reads, because nothing else reads it: those
    of a bottleneck in front of its last layer, say. Layers that have none, and grouped ones, are not there.
    """
    channels, numbers = ChannelGraph(graph_module), channel_numbers(graph_module)
    reading = {layer: read_channels(layer, numbers) for layer in channels.readers}
    random = np.random.default_rng(0)
    found = {}
    for layer, read in reading.items():
        count = read.weighted.shape[2]
        if len(read.weighted) > 1 or count < 2:
            continue
        kept = random.permutation(count) < count // 2
        fewer = replace(read, weighted=read.weighted & kept)
        selection = _selection(channels, _needed(channels, {**reading, layer: fewer}))
        if np.array_equal(selection.get(arguments(layer)["x"], {}).get(1, ()), np.flatnonzero(kept)):
            found[layer] = tuple(node for node in selection if node.target in LAYERS and 1 in selection[node])
    return found


# ---- what is needed ----


def _needed(channels: ChannelGraph, reading: Mapping[Node, Reading]) -> np.ndarray:
    """The decisions that stay, bool by label: what is fixed, what those read that stay, and what keeps tensors and
    groups whole."""
    needed = np.zeros(channels.count, dtype=bool)
    needed[channels.decision[np.concatenate([[0], *(fixed.labels for fixed in channels.fixed)])]] = True
    alive = {layer: read.alive for layer, read in reading.items()}
    sharing = _Sharing(channels)
    before = -1
    while before != (before := int(needed.sum())):
        for layer in reversed(alive):
            filters = needed[channels.decision[channels.labels_of[layer]]].reshape(len(alive[layer]), -1, 1)
            read = (alive[layer] & filters).any(axis=1).ravel()
            needed[channels.decision[channels.readers[layer][read]]] = True
            if len(alive[layer]) > 1:
                _keep_groups_alike(layer, channels, needed)
        for node in channels.labels:
            _keep_rectangular(channels.decisions(node), needed)
        sharing.keep(needed)
    return needed


def _keep_rectangular(decisions: np.ndarray, needed: np.ndarray) -> None:
    """A value keeps whole slices of each dimension, at least one."""
    kept = needed[decisions]
    if not kept.any():
        kept.flat[0] = True
    lines = [kept.any(axis=tuple(other for other in range(kept.ndim) if other != axis)) for axis in range(kept.ndim)]
    needed[decisions[np.ix_(*lines)]] = True


def _keep_groups_alike(layer: Node, channels: ChannelGraph, needed: np.ndarray) -> None:
    """Groups of a convolution that stay have as many filters, and as many channels; a group that has neither goes."""
    groups = arguments(layer)["groups"]
    sides = [
        channels.decision[labels].reshape(groups, -1) for labels in (channels.labels_of[layer], channels.readers[layer])
    ]
    stays = np.any([needed[side].any(axis=1) for side in sides], axis=0)
    for side in sides:
        most = max(1, int(needed[side].sum(axis=1).max()))
        for members in side[stays]:
            spare = members[~needed[members]]
            needed[spare[: most - int(needed[members].sum())]] = True


class _Sharing:
    """Groups of 2 or 4 filters with the same connections run faster than filters alone: of each such set a multiple
    stays."""

    def __init__(self, channels: ChannelGraph) -> None:
        self.decisions = {
            conv: channels.decision[labels] for conv, labels in channels.labels_of.items() if conv.target is CONV2D
        }
        self.found: dict[Node, tuple[int, np.ndarray]] = {}
        """How many filters of a convolution share, and numbers that are equal for filters with the same zeros."""

    def keep(self, needed: np.ndarray) -> None:
        for conv, decisions in self.decisions.items():
            stays = needed[decisions]
            if not stays.all():
                share, kinds = self._look(conv)
                for kind in np.unique(kinds[stays]) if share > 1 else ():
                    members = decisions[kinds == kind]
                    spare = members[~needed[members]]
                    needed[spare[: -int(needed[members].sum()) % share]] = True

    def _look(self, conv: Node) -> tuple[int, np.ndarray]:
        if conv not in self.found:
            weight = constant(arguments(conv)["weight"]).numpy()
            structure = Kernels.detect(weight, arguments(conv)["groups"])
            share = 1 if isinstance(structure, str) else structure.share
            self.found[conv] = share, classes((weight != 0).reshape(len(weight), -1)) if share > 1 else np.empty(0)
        return self.found[conv]


# ---- what goes ----


def _selection(channels: ChannelGraph, needed: np.ndarray) -> Selection:
    """What stays of each value that loses something."""
    selection = {}
    for node in channels.labels:
        kept = needed[channels.decisions(node)]
        if not kept.all():
            lines = {
                axis: kept.any(axis=tuple(other for other in range(kept.ndim) if other != axis))
                for axis in range(kept.ndim)
            }
            selection[node] = {axis: np.flatnonzero(line) for axis, line in lines.items() if not line.all()}
    return selection


def _drop(
    graph_module: GraphModule, channels: ChannelGraph, reading: Mapping[Node, Reading], selection: Selection
) -> None:
    """Adds the numbers that go to the biases of those that read them, then takes the channels away."""
    for layer, read in channels.readers.items():
        x = arguments(layer)["x"]
        if x in selection:
            gone = np.ones(len(read), dtype=bool)
            gone[selection[x][1]] = False
            _fold(layer, offsets(layer, reading[layer], gone))
    for node in graph_module.graph.nodes:
        if node.target in LAYERS:
            filters, count = (_lost(value, selection) for value in (node, arguments(node)["x"]))
            if filters or count:
                before = annotation(node, Dropped) or Dropped(0, 0)
                annotate(node, Dropped(before.filters + filters, before.channels + count))
                forget(node, Structure)
    select_channels(graph_module.graph, selection)
    infer_all(graph_module)


def _lost(value: Node, selection: Selection) -> int:
    """How many channels a value loses."""
    return shape_of(value)[1] - len(selection[value][1]) if 1 in selection.get(value, {}) else 0


def _fold(layer: Node, added: np.ndarray) -> None:
    if added.any():
        bias = arguments(layer)["bias"]
        total = torch.from_numpy(added) + (0 if bias is None else constant(bias))
        set_constant(
            layer, "bias", bias, total.to(constant(arguments(layer)["weight"]).dtype), f"{layer_name(layer)}.bias"
        )


# ---- what stays although it is dead, and why ----


def _why_dead_filters_stay(layer: Node, channels: ChannelGraph, numbers: Numbers) -> str | None:
    weight = constant(arguments(layer)["weight"]).numpy()
    dead: np.ndarray = np.asarray(~weight.reshape(len(weight), -1).any(axis=1))
    if not dead.any():
        return None
    count = f"{int(dead.sum())} of {len(dead)} filters are dead, but their"
    gone = channels.decision[channels.labels_of[layer][dead]]
    for reader in layer.graph.nodes:
        if reader.target in LAYERS and is_constant_layer(reader) and pads(reader):
            x = arguments(reader)["x"]
            constants = np.nan_to_num(numbers_of_channels(x, numbers)) != 0
            if np.isin(channels.channel_decisions(x)[constants], gone).any():
                return (
                    f"{count} bias or activation makes them constants, of which {reader.name} would read less at its "
                    "padding"
                )
    if _emits_zero(layer, numbers)[dead].all():
        return f"{count} channels go with others that are needed"
    return f"{count} bias or activation makes them constants"


def _emits_zero(layer: Node, numbers: Numbers) -> np.ndarray:
    """Filters whose channels are zero, at once or after the elementwise operations that read them."""
    zero = numbers_of_channels(layer, numbers) == 0
    behind = [
        found
        for user in layer.users
        if user.target is ELEMENTWISE and len(found := numbers_of_channels(user, numbers) == 0) == len(zero)
    ]
    return zero | np.all(behind, axis=0) if behind else zero
