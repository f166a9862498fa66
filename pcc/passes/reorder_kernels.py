"""reorder-kernels: FKR, the filter-kernel reorder of PatDNN, for every convolution whose zeros have structure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import Skipped, StoredOrder, annotate, forget
from pcc.ir.channels import ChannelGraph
from pcc.ir.graph import finish
from pcc.passes.channel_order import reorder_channels
from pcc.passes.operands import share_constants
from pcc.passes.pruning import convolutions, groups_of, layer_weight, weight_node
from pcc.sparsity.fkr import filter_order
from pcc.sparsity.kernels import Kernels


@dataclass(frozen=True)
class ReorderKernels:
    """Finds the structure of sparse convolutions, whoever pruned them, and brings filters with like connections
    together.

    The new order of output channels is pushed into the layers that read them where that is free (`FilterOrder`). Where
    it is not, the graph stays as it is and only the packed weight is in that order, undone when results are stored
    (`StoredOrder`, with the reason). Connections inside a filter are ordered when the weight is packed.
    """

    name: ClassVar[str] = "reorder-kernels"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        channels, modified = ChannelGraph(graph_module), False
        for conv in convolutions(graph_module):
            structure = self._structure(conv)
            if isinstance(structure, str):
                annotate(conv, Skipped(self.name, structure))
                continue
            forget(conv, StoredOrder)
            order = filter_order(layer_weight(conv), structure, groups_of(conv))
            if not np.array_equal(order, np.arange(len(order))):
                if reason := reorder_channels(channels, conv, order):
                    annotate(conv, StoredOrder(tuple(order.tolist()), reason))
            modified = True
        if modified:
            share_constants(graph_module)
            finish(graph_module)
        return PassResult(graph_module, modified)

    def _structure(self, conv: Node) -> Kernels | str:
        if weight_node(conv).op != "get_attr":
            return "its weight is computed, not a constant"
        return Kernels.detect(layer_weight(conv), groups_of(conv))
