"""prune-unstructured: single weights go, wherever they are (Han et al., 2015)."""

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Node

from pcc.passes.pruning import PruneLayers, layer_weight
from pcc.sparsity.unstructured import Unstructured


@dataclass(frozen=True)
class PruneUnstructured(PruneLayers):
    """Keeps one weight in ``rate`` of each convolution and linear layer, those of largest magnitude.

    The first convolution is spared unless ``spare_first`` is false or it has a rate of its own in ``layers``, which are
    rates by module path.
    """

    name: ClassVar[str] = "prune-unstructured"
    counted: ClassVar[str] = "weights"

    def structure(self, layer: Node, rate: float) -> Unstructured:
        return Unstructured(rate)

    def count(self, layer: Node) -> int:
        return layer_weight(layer).size
