"""One-shot pruning with layer-wise reconstruction: `pcc.training.reconstruct` as a stage. Takes samples, no labels, and
trains nothing."""

from typing import ClassVar

from torch import nn

from pcc.errors import PccError
from pcc.training.data import Data
from pcc.training.evaluate import BATCH_VALUES
from pcc.training.layers import Structures
from pcc.training.method import Method
from pcc.training.reconstruct import reconstruct


class Reconstruct(Method):
    """Cuts each layer to its structure and fits what is left to what the layer gave before, on ``samples`` training
    samples."""

    name: ClassVar[str] = "reconstruct"
    uses: ClassVar[tuple[str, ...]] = ("data", "seed")

    def __init__(self, model: nn.Module, structures: Structures, *, data: Data, seed: int, samples: int = 256) -> None:
        super().__init__(model, structures, epochs=0)
        if not 1 <= samples <= data.train_size:
            raise PccError(f"reconstruct: {samples} samples of {data.train_size} training samples; give 1 to as many")
        self.structures, self.data, self.seed, self.samples = structures, data, seed, samples

    def finish(self) -> None:
        x, _ = next(iter(self.data.batches(0, self.samples, seed=self.seed)))
        reconstruct(self.model, self.structures, x.split(max(1, BATCH_VALUES // x[0].numel())))
