"""prune-columns: the same weight of the same input channel goes in all filters (Wen et al., 2016; StructADMM, Zhang et
al., 2018)."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch.fx import Node

from pcc.passes.pruning import PruneSlices, layer_weight
from pcc.sparsity.columns import Column


@dataclass(frozen=True)
class PruneColumns(PruneSlices):
    """Keeps one column in ``rate`` of each convolution and linear layer, those of largest norm.

    Their number (in each group of a grouped convolution) is rounded up to a ``multiple``. The first convolution is
    spared unless ``spare_first`` is false or it has a rate of its own in ``layers``, which are rates by module path.
    """

    name: ClassVar[str] = "prune-columns"
    counted: ClassVar[str] = "columns"
    kind: ClassVar[type[Column]] = Column

    def count(self, layer: Node) -> int:
        return prod(layer_weight(layer).shape[1:])
