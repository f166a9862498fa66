"""prune-connectivity: whole connections go, so that a filter no longer reads every input channel (PCONV, PatDNN)."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

from torch.fx import Node

from pcc.ir.ops import CONV2D
from pcc.passes.pruning import PruneLayers, groups_of, layer_weight
from pcc.sparsity import connectivity
from pcc.sparsity.kernels import Kernels


@dataclass(frozen=True)
class PruneConnectivity(PruneLayers):
    """Keeps one connection in ``rate`` of each convolution, those of largest norm after their best pattern.

    ``scope`` spends a convolution's budget over the ``layer`` or in each ``filter`` alike, which balances the work.
    With ``share`` 2 or 4, groups of so many filters, like ones brought together, keep the same channels (and patterns);
    where filters do not divide, fewer share. Connections of 1x1 convolutions are single weights. The first convolution
    is spared, as in the papers, unless ``spare_first`` is false or it has a rate of its own in ``layers``, which are
    rates by module path; layers with fewer connections than the rate are left alone. A later prune-connectivity
    replaces what an earlier one did.
    """

    name: ClassVar[str] = "prune-connectivity"
    counted: ClassVar[str] = "connections"
    targets = (CONV2D,)

    rate: float = 3.6
    scope: Literal["layer", "filter"] = "layer"
    share: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        Kernels(None, 1, self.scope, self.share)  # refuses other scopes and shares

    def structure(self, layer: Node, rate: float) -> Kernels:
        per_group = len(layer_weight(layer)) // groups_of(layer)
        share = max(size for size in connectivity.SHARES if size <= self.share and per_group % size == 0)
        return Kernels(None, rate, self.scope, share)

    def count(self, layer: Node) -> int:
        return prod(layer_weight(layer).shape[:2])
