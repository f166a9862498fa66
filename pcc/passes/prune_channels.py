"""prune-channels: whole input channels go, and with them the filters that only they are for (He et al., 2017, by the L2
norm)."""

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Node

from pcc.passes.pruning import PruneSlices, layer_weight
from pcc.sparsity.filters import Channel


@dataclass(frozen=True)
class PruneChannels(PruneSlices):
    """Keeps one input channel in ``rate`` of each convolution and linear layer, those of largest norm; drop-filters
    takes out filters that nobody reads.

    Their number (in each group of a grouped convolution) is rounded up to a ``multiple``. The first convolution is
    spared unless ``spare_first`` is false or it has a rate of its own in ``layers``, which are rates by module path.
    """

    name: ClassVar[str] = "prune-channels"
    counted: ClassVar[str] = "input channels"
    kind: ClassVar[type[Channel]] = Channel

    def count(self, layer: Node) -> int:
        return layer_weight(layer).shape[1]
