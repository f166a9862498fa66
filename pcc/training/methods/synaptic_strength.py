"""Synaptic strength: which connections between feature maps carry something (Lin, Zhong, Wu, Yan, "Synaptic Strength
for Convolutional Neural Network", NeurIPS 2018).

A connection leads from an input channel to a filter; what it carries is the scale of the channel times the norm of its
weights. The steps of the paper:

* the scale of each batch norm moves into the weights that read it, and each connection becomes a strength times a
  direction: W = s V / ||V||;
* training with weight * sum |s| added to the loss;
* the connections of least |s| are cut, by one threshold for the whole network; fine-tuning follows (a stage of its own,
  `Train`).

Where we depart from it:

* The scale is not moved but held fixed while this stage trains, and s is the product: W = s / scale * V / ||V||. That
  computes the same without dividing by
  scales near zero, and each weight goes back where it came from.
* Of maps that are added (shortcuts), scales add as those of independent variables do: the root of the sum of squares. A
  map that no batch norm scales has 1.
* Strengths are compared, and their penalty weighed, in units of what a filter of their layer gets from all its
  connections at the start (the root of the
  mean over filters of sum s^2): the batch norm that follows undoes the scale of a layer, and in a network that is
  trained already strengths are the smaller the more of them a filter has. One threshold for bare strengths would cut
  the last layers off.
* Linear layers take part where they are not the last: a connection is what leads from one map to one neuron. Every
  layer keeps its strongest connection.

Structures that a recipe gives are ignored: the threshold decides alone. Zeros that are there already stay.
"""

import logging
from typing import ClassVar

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.training.data import Data
from pcc.training.layers import Structures, groups_of, prunable
from pcc.training.method import Masks, Method
from pcc.training.methods.wiring import NORMS, Wiring, connection_norms, is_sum, per_connection, per_weight

_LOG = logging.getLogger(__name__)

LEAST_SCALE = 1e-4
"""Batch norms scale by less where a map is all but dead; its connections' strengths then are what they would be at this
scale."""


class Strength(nn.Module):
    """A weight as strengths s (O, channels) and directions V (the weight's shape): W = s / scale * V / ||V||, each
    connection alone.

    ``scale`` (O, channels) is that of the feature map which a connection reads; ``kept``: bool, the weight's shape.
    """

    scale: torch.Tensor
    kept: torch.Tensor

    def __init__(self, scale: torch.Tensor, kept: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("kept", kept)

    def forward(self, strength: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        # A connection that is all zero has strength 0 and no direction.
        norms = connection_norms(direction, strength.shape[1]).clamp_min(torch.finfo(torch.float32).tiny)
        return per_weight(strength / self.scale / norms, direction) * direction * self.kept

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return connection_norms(weight, self.scale.shape[1]) * self.scale, weight.clone()


class SynapticStrength(Method):
    """Trains strengths of connections under an L1 penalty and keeps the strongest.

    ``rate``: connections of the network for each that stays; ``weight``: of the penalty.
    """

    name: ClassVar[str] = "synaptic-strength"
    uses: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(
        self, model: nn.Module, structures: Structures, epochs: int, *, data: Data, rate: float, weight: float = 2e-4
    ) -> None:
        super().__init__(model, structures, epochs)
        if weight < 0:
            raise PccError(f"synaptic-strength: weight is {weight:g}; give 0 or more")
        wiring = Wiring(model, data.input_shape)
        scales = input_scales(wiring)
        layers = {
            name: module for name, module in prunable(model).items() if name in scales and not _is_last(wiring, name)
        }
        if not layers:
            raise PccError(
                f"synaptic-strength: {type(model).__name__} has one layer, and the last one keeps its connections"
            )
        left_out = [name for name in prunable(model) if name not in layers]
        _LOG.info("these keep all connections, as they run last, or not once: %s", ", ".join(left_out))
        self.connections = sum(
            len(module.weight) * len(scales[name]) // groups_of(module) for name, module in layers.items()
        )
        self.budget = max(budget(self.connections, rate), len(layers))
        self.weight = weight
        self.masks = Masks(model)
        self.masks.kept = {name: kept for name, kept in self.masks.kept.items() if name not in layers}
        self.norms = [
            module
            for module in model.modules()
            if isinstance(module, NORMS) and module.affine and module.weight.requires_grad
        ]
        for norm in self.norms:
            norm.weight.requires_grad_(False)
        self.reparameterised = layers
        for name, module in layers.items():
            scale = per_connection(scales[name].clamp_min(LEAST_SCALE), len(module.weight), groups_of(module)).clone()
            # unsafe: the pair (s, V) has not the shape of W.
            parametrize.register_parametrization(
                module, "weight", Strength(scale, module.weight.detach() != 0), unsafe=True
            )
        self.units = {
            name: max(float(strength.detach().norm()) / len(strength) ** 0.5, LEAST_SCALE)
            for name, strength in self.strengths().items()
        }
        """What strengths of a layer are measured in."""

    def strengths(self) -> dict[str, nn.Parameter]:
        """s (O, channels) of every layer that takes part."""
        return {name: module.parametrizations.weight.original0 for name, module in self.reparameterised.items()}  # type: ignore[union-attr]

    def penalty(self) -> torch.Tensor:
        # Times the unit, so that strengths of all layers shrink alike in their units.
        return (
            self.weight
            * torch.stack(
                [self.units[name] * strength.abs().sum() for name, strength in self.strengths().items()]
            ).sum()
        )

    def after_step(self) -> None:
        self.masks.apply()

    def finish(self) -> None:
        with torch.no_grad():
            for strength, kept in zip(self.strengths().values(), strongest(self._relative(), self.budget), strict=True):
                strength.mul_(kept)
        # Without gradients the weights would come back as buffers.
        with torch.enable_grad():
            for module in self.reparameterised.values():
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        for norm in self.norms:
            norm.weight.requires_grad_(True)

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """``cut``: the part of all strength that the threshold would take."""
        strengths = self._relative()
        kept = strongest(strengths, self.budget)
        total = sum(float(strength.sum()) for strength in strengths)
        return {
            "cut": 1
            - sum(float((strength * stays).sum()) for strength, stays in zip(strengths, kept, strict=True)) / total
        }

    def _relative(self) -> list[torch.Tensor]:
        """|s| of every layer in its units."""
        return [strength.detach().abs() / self.units[name] for name, strength in self.strengths().items()]


def strongest(strengths: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    """Which connections stay, as bools of the strengths' shapes: the strongest of each layer, then the strongest of
    all, ``count`` together, ties by index."""
    everything = torch.cat([strength.flatten() for strength in strengths])
    first = 0
    for strength in strengths:
        everything[first + int(strength.argmax())] = torch.inf
        first += strength.numel()
    kept = torch.zeros_like(everything, dtype=torch.bool)
    kept[everything.argsort(descending=True, stable=True)[:count]] = True
    return [
        part.reshape(strength.shape)
        for part, strength in zip(kept.split([layer.numel() for layer in strengths]), strengths, strict=True)
    ]


def input_scales(wiring: Wiring) -> dict[str, torch.Tensor]:
    """The scale of each feature map that a layer reads, (channels,), by layer."""
    scales: dict[fx.Node, torch.Tensor | None] = {}
    found = {}
    for node in wiring.graph.graph.nodes:
        module = wiring.module(node)
        inputs = [scales[value] for value in node.all_input_nodes if value.op != "get_attr"]
        if isinstance(module, nn.Conv2d | nn.Linear):
            count = module.in_channels if isinstance(module, nn.Conv2d) else module.in_features
            read = inputs[0] if inputs[0] is not None and count % len(inputs[0]) == 0 else module.weight.new_ones(count)
            if wiring.nodes.get(wiring.name(node)) is node:
                found[wiring.name(node)] = read.detach()
            scales[node] = module.weight.new_ones(len(module.weight))
        elif isinstance(module, NORMS):
            if module.affine:
                scales[node] = module.weight.detach().abs()
            else:
                scales[node] = module.running_mean.new_ones(module.num_features)  # type: ignore[union-attr]
        elif is_sum(node):
            known = [value for value in inputs if value is not None]
            alike = len(known) == len(inputs) and len({value.shape for value in known}) == 1
            scales[node] = torch.stack(known).norm(dim=0) if alike else None
        else:
            scales[node] = inputs[0] if inputs and wiring.keeps_zeros(node) else None
    return found


def _is_last(wiring: Wiring, name: str) -> bool:
    """Whether the network's output is the layer's."""
    node = wiring.nodes[name]
    while len(node.users) == 1:
        (node,) = node.users
        if node.op == "output":
            return True
        if not wiring.keeps_zeros(node):
            return False
    return False
