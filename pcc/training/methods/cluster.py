"""Retraining of shared values (Han et al., "Deep Compression", ICLR 2016; clustering retraining of Ye et al., arXiv
1811.01907).

The weights of a layer that are not zero are put into clusters, those of the nearest centroid, and each becomes its
centroid. From there it is the centroids that learn: the gradient of a centroid is the sum of the gradients of its
members, and all members move alike. Which weight is in which cluster stays.

The sum is divided by the number of members. That is the descent of the paper with a learning rate for each centroid,
and makes the steps those that plain training of the weights takes, projected on what the clusters allow: learning rates
of dense training fit, however large a cluster is.

The joint training of the paper comes before, as a stage of `Admm` with `Centroids`: there each projection finds new
clusters and centroids.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.centroids import Centroids, assign
from pcc.training.layers import Structures, array
from pcc.training.method import Masks, Method


class Cluster(Method):
    """Trains the centroids of each layer. Zeros that are there already stay; what has no structure is trained as
    ever."""

    name: ClassVar[str] = "cluster"

    def __init__(self, model: nn.Module, structures: Structures, epochs: int) -> None:
        super().__init__(model, structures, epochs)
        if not self.layers:
            raise PccError("cluster: no layer has a structure")
        for layer in self.layers:
            if not isinstance(layer.structure, Centroids):
                raise PccError(
                    f"cluster: the structure of layer {layer.name} is '{layer.structure.name}': it takes "
                    f"{Centroids.name}"
                )
        self.masks = Masks(model)
        self.codes: dict[str, torch.Tensor] = {}
        """The cluster of each weight, int64 of the weight's shape; -1 for zeros."""

    def begin(self) -> None:
        for layer in self.layers:
            assert isinstance(layer.structure, Centroids)
            weight = array(layer.weight)
            assigned = assign(weight, layer.structure.scale(weight))
            self.codes[layer.name] = torch.from_numpy(assigned).long().to(layer.weight.device)
        self.after_step()

    def backward(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        loss = super().backward(compute)
        for layer in self.layers:
            if layer.weight.grad is not None:
                share(layer.weight.grad, self.codes[layer.name])
        return loss

    @torch.no_grad()
    def after_step(self) -> None:
        """Members that were equal and had equal gradients are equal still, but for what an optimizer rounds
        differently."""
        self.masks.apply()
        for layer in self.layers:
            share(layer.weight, self.codes[layer.name])

    @property
    def ends_changed(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"codes": self.codes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.codes = {layer.name: state["codes"][layer.name].to(layer.weight.device) for layer in self.layers}


@torch.no_grad()
def share(values: torch.Tensor, codes: torch.Tensor) -> None:
    """Makes every entry the mean of its cluster's entries, in place; those of code -1 become 0."""
    held = codes.ravel() + 1
    clusters = int(held.max()) + 1
    sums = torch.zeros(clusters, dtype=torch.float64, device=values.device).index_add_(0, held, values.ravel().double())
    means = sums / torch.bincount(held, minlength=clusters).clamp_min(1)
    means[0] = 0
    values.copy_(means[held].reshape(values.shape))
