"""Training that keeps the zeros there are: dense training where there are none, masked retraining after pruning (Han et
al., 2015)."""

from typing import ClassVar

from torch import nn

from pcc.training.layers import Structures
from pcc.training.method import Masks, Method


class Train(Method):
    """Weights that are zero when it begins stay zero."""

    name: ClassVar[str] = "train"

    def __init__(self, model: nn.Module, structures: Structures, epochs: int) -> None:
        super().__init__(model, structures, epochs)
        self.masks = Masks(model)

    def after_step(self) -> None:
        self.masks.apply()

    @property
    def ends_changed(self) -> bool:
        return False
