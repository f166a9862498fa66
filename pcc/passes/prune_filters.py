"""prune-filters: whole filters go, with what reads their channels (Li et al., 2017, by the L2 norm)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import annotation
from pcc.ir.channels import LAYERS, ChannelGraph, is_constant_layer
from pcc.ir.graph import arguments, constant
from pcc.passes.operands import set_constant
from pcc.passes.pruning import Pruned, PruneSlices, layer_weight
from pcc.sparsity.compose import parts_of
from pcc.sparsity.filters import Filter
from pcc.sparsity.structure import Structure


@dataclass(frozen=True)
class PruneFilters(PruneSlices):
    """Keeps one filter in ``rate`` of each convolution and linear layer, those of largest norm; drop-filters takes the
    others out.

    Their number is rounded up to a ``multiple``. Layers whose channels are an output, or are added to those of other
    layers, are left alone, and so is the first convolution unless ``spare_first`` is false or it has a rate of its own
    in ``layers``, which are rates by module path.
    """

    name: ClassVar[str] = "prune-filters"
    counted: ClassVar[str] = "filters"
    kind: ClassVar[type[Filter]] = Filter

    def count(self, layer: Node) -> int:
        return len(layer_weight(layer))

    def __call__(self, graph_module: GraphModule) -> PassResult:
        """The biases of filters that are taken away become zero, and those of depthwise filters behind: with them they
        would go on making constants."""
        result, channels = super().__call__(graph_module), ChannelGraph(graph_module)
        pruned = [
            layer
            for layer in channels.labels_of
            if (found := annotation(layer, Pruned)) and _takes_filters(found.structure)
        ]
        gone = [
            channels.decision[channels.labels_of[layer]][
                ~layer_weight(layer).reshape(self.count(layer), -1).any(axis=1)
            ]
            for layer in pruned
        ]
        for layer in graph_module.graph.nodes if gone else ():
            if layer.target in LAYERS and is_constant_layer(layer) and (bias := arguments(layer)["bias"]) is not None:
                dead = np.isin(channels.channel_decisions(layer), np.concatenate(gone))
                set_constant(layer, "bias", bias, constant(bias).masked_fill(torch.from_numpy(dead), 0), "")
        return result

    def unfit(self, layers: list[Node]) -> dict[Node, str]:
        reasons = super().unfit(layers)
        module = layers[0].graph.owning_module if layers else None
        channels = ChannelGraph(module) if module else None
        return reasons | {
            layer: reason
            for layer in layers
            if channels and layer not in reasons and (reason := channels.why_bound(layer))
        }


def _takes_filters(structure: Structure) -> bool:
    return any(isinstance(part, Filter) for part in parts_of(structure))
