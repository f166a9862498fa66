"""ADMM-regularised pruning and quantisation (Zhang et al., "A Systematic DNN Weight Pruning Framework using ADMM", ECCV
2018).

The problem min f(W) subject to W in S is split by Z in S and a scaled dual U. The steps of the paper:

* W: some epochs of training on f(W) + rho/2 ||W - Z + U||^2, the norm squared;
* Z = the projection of W + U on S;
* U = U + W - Z;

and at the end W is projected on S ("masked mapping", Ye et al. 2019; the masked retraining that follows is a stage of
its own, `Train`). The set S is whatever structure a layer has: with a joint exact projection one Z serves patterns and
connectivity, where PatDNN splits twice. rho grows in equal parts of the stage (1e-4 -> 1e-1 in the practice of the
authors' group); the scaled dual is divided by as much.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.layers import Structures
from pcc.training.method import Masks, Method


class Admm(Method):
    """Pulls the weights of each layer towards its structure; zeros that are there already stay, where the structure has
    zeros.

    ``rhos`` are used for equal shares of the epochs, in their order; ``every``: epochs between two updates of Z and U;
    ``exact``: whether W is projected at the end. Without, it stays near S: `Quantize` takes it the rest of the way, the
    closest weights first.
    """

    name: ClassVar[str] = "admm"

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        rhos: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
        every: int = 1,
        exact: bool = True,
    ) -> None:
        super().__init__(model, structures, epochs)
        if not self.layers:
            raise PccError("admm: no layer has a structure")
        if not rhos or min(rhos) <= 0:
            raise PccError("admm: rhos are positive numbers, at least one")
        if epochs < len(rhos):
            raise PccError(f"admm: {len(rhos)} rhos take at least as many epochs; there are {epochs}")
        if not 1 <= every <= epochs:
            raise PccError(f"admm: Z and U are updated every {every} epochs of {epochs}; give 1 to epochs")
        self.rhos, self.every, self.exact = tuple(rhos), every, exact
        self.masks = Masks(model)
        self.z: dict[str, torch.Tensor] = {}
        self.u: dict[str, torch.Tensor] = {}

    @property
    def rho(self) -> float:
        """Of the epoch that runs."""
        return self.rhos[min(self.epoch, self.epochs - 1) * len(self.rhos) // self.epochs]

    @torch.no_grad()
    def begin(self) -> None:
        self.z = {layer.name: layer.project(layer.weight) for layer in self.layers}
        self.u = {layer.name: torch.zeros_like(layer.weight) for layer in self.layers}

    def penalty(self) -> torch.Tensor:
        squares = [(layer.weight - self.z[layer.name] + self.u[layer.name]).square().sum() for layer in self.layers]
        return self.rho / 2 * torch.stack(squares).sum()

    def after_step(self) -> None:
        self.masks.apply()

    @torch.no_grad()
    def update(self) -> None:
        if self.epoch % self.every == 0:
            for layer in self.layers:
                self.z[layer.name] = layer.project(layer.weight + self.u[layer.name])
                self.u[layer.name] += layer.weight - self.z[layer.name]
        before = self.rhos[(self.epoch - 1) * len(self.rhos) // self.epochs]
        if before != self.rho:
            for dual in self.u.values():
                dual *= before / self.rho

    @torch.no_grad()
    def finish(self) -> None:
        if self.exact:
            for layer in self.layers:
                layer.weight.copy_(layer.project(layer.weight))

    @property
    def ends_changed(self) -> bool:
        return self.exact

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        distances = [
            float((layer.weight - self.z[layer.name]).norm() / layer.weight.norm().clamp_min(1e-12))
            for layer in self.layers
        ]
        return {"rho": self.rho, "distance": sum(distances) / len(distances)}

    def state_dict(self) -> dict[str, Any]:
        return {"z": self.z, "u": self.u}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.z, self.u = state["z"], state["u"]
