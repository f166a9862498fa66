"""DropPruning (Jia et al., "DropPruning for Model Compression", 2018): pruning that may err, because some of what it
removes comes back.

Each step, in every layer of n weights that shall keep n / rate:

* the c_t n weights of smallest magnitude are candidates, c_t growing from step to step to the final sparsity;
* *drop out*: each candidate that is still there is removed with probability p_out;
* *drop in*: each weight that was removed before is put back with probability p_in, with the value it had;
* some epochs of retraining.

The last step is not random: exactly the budget stays. The paper leaves the growth of c_t open ("suitable probabilities
make the size flow to the target"); here it is Zhu & Gupta's cubic. What is random is drawn from the seed, the epoch and
the layer alone, so resumed runs and all processes draw the same.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.budget import largest
from pcc.sparsity.unstructured import Unstructured
from pcc.training.layers import Layer, Structures, array
from pcc.training.method import Masks, Method


class DropPruning(Method):
    """Prunes in ``steps`` steps with ``every`` epochs of retraining after each, and more after the last if epochs are
    left.

    Layers take `Unstructured`. Weights that are zero when the stage begins stay zero.
    """

    name: ClassVar[str] = "drop-pruning"
    uses: ClassVar[tuple[str, ...]] = ("seed",)

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        steps: int,
        every: int = 1,
        p_out: float = 0.8,
        p_in: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(model, structures, epochs)
        if not self.layers:
            raise PccError("drop-pruning: no layer has a structure")
        for layer in self.layers:
            if not isinstance(layer.structure, Unstructured):
                raise PccError(
                    f"drop-pruning: layer {layer.name} has the structure '{layer.structure.name}': weights are dropped "
                    "one by one, give unstructured"
                )
        if steps < 1 or every < 1 or steps * every > epochs:
            raise PccError(
                f"drop-pruning: {steps} steps with {every} epochs of retraining after each do not fit into {epochs} "
                "epochs"
            )
        if not (0 < p_out <= 1 and 0 <= p_in < 1):
            raise PccError(
                f"drop-pruning: p_out = {p_out:g} and p_in = {p_in:g} are probabilities: p_out above 0, p_in below 1"
            )
        self.steps, self.every, self.p_out, self.p_in, self.seed = steps, every, p_out, p_in, seed
        self.zeros_before = Masks(model)
        self.removed = {layer.name: torch.zeros_like(layer.weight, dtype=torch.bool) for layer in self.layers}
        """Weights that this stage has removed."""
        self.values = {layer.name: torch.zeros_like(layer.weight) for layer in self.layers}
        """What those weights were when they were removed."""
        self.restored = 0

    def begin(self) -> None:
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        step, between = divmod(self.epoch, self.every)
        if between or step >= self.steps:
            return
        self.restored = 0
        for number, layer in enumerate(self.layers):
            if step + 1 == self.steps:
                self._settle(layer)
            else:
                self._drop(
                    layer,
                    1 - (1 - (step + 1) / self.steps) ** 3,
                    np.random.default_rng([self.seed, self.epoch, number]),
                )

    def _drop(self, layer: Layer, grown: float, random: np.random.Generator) -> None:
        """One step in one layer; ``grown`` is c_t as a part of the final sparsity."""
        weight, removed, values = layer.weight, self.removed[layer.name], self.values[layer.name]
        magnitudes = np.abs(array(weight))
        assert isinstance(layer.structure, Unstructured)
        candidates = round(grown * (1 - 1 / layer.structure.rate) * magnitudes.size)
        smallest = ~largest(magnitudes, magnitudes.size - candidates)
        drawn = torch.from_numpy(random.random(magnitudes.shape, dtype=np.float32)).to(weight.device)
        out = torch.from_numpy(smallest).to(weight.device) & ~removed & (weight != 0) & (drawn < self.p_out)
        back = removed & (drawn < self.p_in)
        values.copy_(torch.where(out, weight, values))
        weight.copy_(torch.where(back, values, weight).masked_fill(out, 0))
        removed.copy_((removed | out) & ~back)
        self.restored += int(back.sum())

    def _settle(self, layer: Layer) -> None:
        """The last step: the budget, exactly."""
        layer.weight.copy_(layer.project(layer.weight))
        self.removed[layer.name].copy_(layer.weight == 0)

    @torch.no_grad()
    def after_step(self) -> None:
        self.zeros_before.apply()
        for layer in self.layers:
            layer.weight.masked_fill_(self.removed[layer.name], 0)

    @property
    def ends_changed(self) -> bool:
        return False

    def metrics(self) -> dict[str, float]:
        return {"restored": self.restored}

    def state_dict(self) -> dict[str, Any]:
        return {"removed": self.removed, "values": self.values, "restored": self.restored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for layer in self.layers:
            self.removed[layer.name].copy_(state["removed"][layer.name])
            self.values[layer.name].copy_(state["values"][layer.name])
        self.restored = state["restored"]
