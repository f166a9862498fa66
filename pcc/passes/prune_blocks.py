"""prune-blocks: blocks of filters and channels go whole, after both were put in an order that suits (TETRIS, Ji et al.,
NeurIPS 2018)."""

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Node

from pcc.passes.pruning import PruneLayers, groups_of, layer_weight
from pcc.sparsity.tetris import Tetris


@dataclass(frozen=True)
class PruneBlocks(PruneLayers):
    """Keeps one block in ``rate``, of ``filters`` x ``channels`` connections, of each convolution and linear layer, in
    orders that are searched.

    The first convolution is spared unless ``spare_first`` is false or it has a rate of its own in ``layers``, which are
    rates by module path.
    """

    name: ClassVar[str] = "prune-blocks"
    counted: ClassVar[str] = "blocks"

    filters: int = 8
    channels: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        Tetris(1, (self.filters, self.channels))  # refuses blocks without a connection

    def structure(self, layer: Node, rate: float) -> Tetris:
        return Tetris(rate, (self.filters, self.channels))

    def count(self, layer: Node) -> int:
        filters, channels = layer_weight(layer).shape[:2]
        groups = groups_of(layer)
        return groups * -(-filters // groups // self.filters) * -(-channels // self.channels)
