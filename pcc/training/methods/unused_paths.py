"""Unused path removal (Ma et al., "Tiny but Accurate: A Pruned, Quantized and Optimized Memristor Crossbar Framework
for Ultra Efficient DNN Implementation", 2019, arXiv 1908.10017).

A filter of zeros still makes a map, the constant that its bias or batch norm adds. The map becomes zero, and with it
the channels that read it; a filter that no layer reads goes as well, until nothing more follows. So `Filter` pruning
takes away a filter *and* the channel that it feeds. Constants that the network had come to rely on are lost: `Train`
comes after. Maps that are added to others (shortcuts), concatenated or returned stay (`wiring`).
"""

from typing import ClassVar

import torch
from torch import nn

from pcc.training.data import Data
from pcc.training.evaluate import sparsity
from pcc.training.layers import Structures, prunable
from pcc.training.method import Method
from pcc.training.methods.wiring import Wiring


class UnusedPaths(Method):
    """Zeros what dead filters feed, and filters that nobody reads. Needs no epochs; structures that a recipe gives are
    ignored."""

    name: ClassVar[str] = "unused-paths"
    uses: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(self, model: nn.Module, structures: Structures, *, data: Data) -> None:
        super().__init__(model, structures, epochs=0)
        self.wiring = Wiring(model, data.input_shape)

    @torch.no_grad()
    def finish(self) -> None:
        layers = prunable(self.model).values()
        removed, before = sparsity(layers), -1.0
        while removed > before:
            for source in self.wiring.sources.values():
                source.silence(source.unread() | ~source.module.weight.flatten(1).any(dim=1))
            removed, before = sparsity(layers), removed
