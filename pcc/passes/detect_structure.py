"""detect-structure: which structure the weights of each layer have, whichever tool pruned them."""

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from pcc.ir.annotations import annotate, forget
from pcc.ir.channels import LAYERS
from pcc.passes.pruning import groups_of, layer_weight, weight_node
from pcc.sparsity.detect import detect, share_patterns
from pcc.sparsity.structure import Structure


@dataclass(frozen=True)
class DetectStructure:
    """Says of each convolution and linear layer which structure its zeros and values have.

    Layers whose patterns are of the same size have one set of them, if it is a small one. Dense layers have no
    structure.
    """

    name: ClassVar[str] = "detect-structure"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: GraphModule) -> PassResult:
        found: dict[Node, Structure] = {}
        for layer in graph_module.graph.nodes:
            if layer.target in LAYERS and weight_node(layer).op == "get_attr":
                forget(layer, Structure)
                structure = detect(layer_weight(layer), groups_of(layer))
                if isinstance(structure, Structure):
                    found[layer] = structure
        for layer, structure in zip(found, share_patterns(list(found.values())), strict=True):
            annotate(layer, structure)
        return PassResult(graph_module, False)
