"""One-shot pruning: the weights become the nearest that have the structure, once. No data, no training."""

from typing import ClassVar

import torch
from torch import nn

from pcc.training.layers import Structures
from pcc.training.method import Method


class OneShot(Method):
    """Projects each layer on its structure."""

    name: ClassVar[str] = "one-shot"

    def __init__(self, model: nn.Module, structures: Structures) -> None:
        super().__init__(model, structures, epochs=0)

    @torch.no_grad()
    def finish(self) -> None:
        for layer in self.layers:
            layer.weight.copy_(layer.project(layer.weight))
