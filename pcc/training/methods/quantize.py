"""Iterative weight quantisation and retraining (Ye et al., arXiv 1811.01907 and arXiv 1903.09769).

ADMM leaves most weights very near a level. From there:

* the share of weights that are closest to their level goes to it and is fixed;
* the others are retrained, and make up for what that cost;
* a larger share is fixed, and so on until it is all of them.

The levels are those of each layer's structure, with the scale that fits the weights best when the stage begins: fixed
weights stay on theirs, free ones choose again at each fixing. Zeros that are there already stay and are not counted in
the shares. In the last part of the stage all weights are fixed, and biases, batch norms and layers without a structure
adapt to that; the papers end with the last fixing. `Admm` with ``exact: false`` hands over weights that are near their
levels and not yet on them.

Free weights are clamped to the range of the levels. Yuan et al. (arXiv 1908.11691) do so for memristors, whose
conductance has a range; with binary weights it decides over success: without, the last free weights grow far beyond the
levels to make up for all others, and fixing them undoes it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.budget import largest
from pcc.sparsity.values import Values
from pcc.training.layers import Layer, Structures, array
from pcc.training.method import Masks, Method


class Quantize(Method):
    """Puts the weights on the levels of their layer's structure; each of the ``shares`` is fixed for an equal part of
    the epochs, the last is 1."""

    name: ClassVar[str] = "quantize"

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        shares: Sequence[float] = (0.5, 0.75, 0.875, 1.0),
    ) -> None:
        super().__init__(model, structures, epochs)
        if not self.layers:
            raise PccError("quantize: no layer has a structure")
        if not shares or list(shares) != sorted(shares) or shares[0] < 0 or shares[-1] != 1:
            raise PccError("quantize: shares ascend from 0 or more to 1")
        if epochs < len(shares):
            raise PccError(f"quantize: {len(shares)} shares take at least as many epochs; there are {epochs}")
        self.shares = tuple(shares)
        self.masks = Masks(model)
        self.settling = {layer.name: _Settling(layer) for layer in self.layers}

    @property
    def share(self) -> float:
        """Of the epoch that runs."""
        return self.shares[min(self.epoch, self.epochs - 1) * len(self.shares) // self.epochs]

    def begin(self) -> None:
        for settling in self.settling.values():
            settling.begin()
        self.update()

    def after_step(self) -> None:
        self.masks.apply()
        for settling in self.settling.values():
            settling.hold()

    def update(self) -> None:
        for settling in self.settling.values():
            settling.fix(self.share)

    @property
    def ends_changed(self) -> bool:
        return False

    def metrics(self) -> dict[str, float]:
        return {"fixed": self.share}

    def state_dict(self) -> dict[str, Any]:
        return {name: settling.state for name, settling in self.settling.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, settling in self.settling.items():
            settling.state = {key: value.to(settling.layer.weight.device) for key, value in state[name].items()}


class _Settling:
    """One layer: which of its weights are fixed, and where."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.values = layer, values_of(layer, Quantize.name)
        self.state: dict[str, torch.Tensor] = {}
        """``scale`` of the levels; ``low``, ``high``: the least and the largest level; ``pruned``, ``fixed``: bool,
        ``target``: where weights that are one of these stay; all but the scale of the weight's shape."""

    def begin(self) -> None:
        weight = array(self.layer.weight)
        scale = self.values.scale(weight)
        target = self.values.nearest(weight, scale)
        largest = np.full_like(weight, np.finfo(np.float32).max)
        self._keep(
            scale=scale,
            low=self.values.nearest(-largest, scale),
            high=self.values.nearest(largest, scale),
            pruned=(weight == 0) & (target == 0),
            fixed=np.zeros(weight.shape, dtype=bool),
            target=target,
        )

    def fix(self, share: float) -> None:
        """Fixes this share of the weights that are not pruned, those that are fixed already first."""
        weight = array(self.layer.weight)
        target = self.values.nearest(weight, self.state["scale"].cpu().numpy())
        pruned, fixed = (self.state[name].cpu().numpy() for name in ("pruned", "fixed"))
        closeness = np.where(fixed, np.inf, np.where(pruned, -np.inf, -np.abs(weight - target)))
        self._keep(fixed=largest(closeness, round(share * int((~pruned).sum()))), target=target)
        self.hold()

    @torch.no_grad()
    def hold(self) -> None:
        weight = self.layer.weight
        weight.clamp_(self.state["low"], self.state["high"])
        weight.copy_(torch.where(self.state["fixed"] | self.state["pruned"], self.state["target"], weight))

    def _keep(self, **arrays: np.ndarray) -> None:
        self.state |= {
            name: torch.from_numpy(np.array(value)).to(self.layer.weight.device) for name, value in arrays.items()
        }


def values_of(layer: Layer, method: str) -> Values:
    """The layer's structure, which has to say what values weights take; `PccError` if it does not."""
    if not isinstance(layer.structure, Values):
        raise PccError(
            f"{method}: the structure of layer {layer.name} is '{layer.structure.name}': it takes one of levels, signs "
            "or centroids"
        )
    return layer.structure
