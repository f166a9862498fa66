"""Gradual pruning: the budget tightens from epoch to epoch, then the zeros are frozen and training goes on.

Two papers, one loop:

* Zhu & Gupta, "To prune, or not to prune" (2017): sparsity s_t = s_f (1 - (1 - t/n)^3), fast while there is much to
  spare, slow at the end;
* Campfire (Gamboa et al., 2020): no regulariser, training from scratch, fixed structures inside connections and
  filters, equal steps once an epoch.

Both prune by magnitude; here a step is the projection on the structure with part of its budget, so whatever has a rate
can grow: weights, windows, connections, filters. What has no degrees (the patterns of connections) comes in full with
the first step. Departures: Zhu & Gupta step every few hundred updates, here it is once an epoch; patterns that are
mined are those of the weights the stage begins with.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.compose import Composition
from pcc.sparsity.structure import Structure
from pcc.sparsity.window import Window
from pcc.training.layers import Structures
from pcc.training.method import Masks, Method


class Gradual(Method):
    """Prunes in ``end - start`` steps, before each of the epochs ``start`` to ``end - 1`` (from 0); the last has the
    whole budget, and then zeros stay.

    Between two steps pruned weights stay zero, or with ``regrow`` train on, so that a step may choose others. Weights
    that are zero when the stage begins stay zero in any case.
    """

    name: ClassVar[str] = "gradual"

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        end: int,
        start: int = 0,
        schedule: Literal["cubic", "linear"] = "cubic",
        regrow: bool = False,
    ) -> None:
        super().__init__(model, structures, epochs)
        if not self.layers:
            raise PccError("gradual: no layer has a structure")
        if not 0 <= start < end <= epochs:
            raise PccError(f"gradual: pruning from epoch {start} to {end} of {epochs}: give 0 <= start < end <= epochs")
        for layer in self.layers:
            try:
                partial(layer.structure, 0.5)
            except PccError as error:
                raise PccError(f"gradual: layer {layer.name}: {error}") from None
        self.start, self.end, self.schedule, self.regrow = start, end, schedule, regrow
        self.zeros_before = Masks(model)
        self.masks = self.zeros_before

    @property
    def share(self) -> float:
        """The part of the final sparsity that holds in the epoch that runs, 0..1."""
        if self.epoch < self.start:
            return 0.0
        done = min(1.0, (self.epoch - self.start + 1) / (self.end - self.start))
        return done if self.schedule == "linear" else 1 - (1 - done) ** 3

    def begin(self) -> None:
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        if not self.start <= self.epoch < self.end:
            return
        for layer in self.layers:
            layer.weight.copy_(replace(layer, structure=partial(layer.structure, self.share)).project(layer.weight))
        self.masks = Masks(self.model)

    def after_step(self) -> None:
        growing = self.regrow and self.epoch < self.end - 1
        (self.zeros_before if growing else self.masks).apply()

    @property
    def ends_changed(self) -> bool:
        return False

    def metrics(self) -> dict[str, float]:
        return {"share": self.share}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.share > 0:
            self.masks = Masks(self.model)


def partial(structure: Structure, share: float) -> Structure:
    """The structure when ``share`` of the zeros it asks for are there: a sparsity of 1 - 1/rate becomes ``share`` of
    that. `PccError` if it has no rate."""
    if share == 1:
        return structure
    if isinstance(structure, Composition):
        return replace(structure, parts=tuple(partial(part, share) for part in structure.parts))
    if isinstance(structure, Window):
        return replace(structure, rate=_partial(structure.rate, share), kernels=_partial(structure.kernels, share))
    rate = getattr(structure, "rate", None)
    if rate is None:
        raise PccError(f"the structure '{structure.name}' has no rate that could grow")
    graded: Any = structure
    return replace(graded, rate=_partial(rate, share))


def _partial(rate: float, share: float) -> float:
    return 1 / (1 - share * (1 - 1 / rate))
