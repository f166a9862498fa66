"""A network that prunes a network (Verma, Singh, Namboodiri, Rai, "A 'Network Pruning Network' Approach to Deep Model
Compression", WACV 2020).

The pruner has the architecture of its target but for the last layer, which has one output for every filter of the
target. The steps of the paper:

* the pruner sees the batch and says for every filter whether its feature map is needed; the target, frozen, computes
  with the maps that are;
* the pruner is trained on the target's loss + weight * the cost of what it keeps: how much of each layer goes is
  learnt, not given;
* all filters that are not needed go at once; fine-tuning follows (a stage of its own, `Train`).

What the paper's abstract leaves open, and how it is here:

* a decision is a gate g = sigmoid(beta * logit), which multiplies the feature map where it is read; beta grows from 1
  to ``beta`` over the stage, epoch by
  epoch, and a filter stays if g > 1/2 (logit > 0);
* logits are averaged over the batch, so that gates do not hang on one input and still become 0 or 1; what decides is
  their running mean, which is used, as
  0 or 1, wherever the model is evaluated;
* a filter costs the multiplications that go with it, its own and its readers', as a part of what all filters cost;
* layers whose maps are added to others (shortcuts) or returned keep all filters (`wiring`), and every layer keeps at
  least one.

Structures that a recipe gives are ignored: the pruner decides alone.
"""

import copy
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.data import Data
from pcc.training.evaluate import positions
from pcc.training.layers import Structures, prunable
from pcc.training.method import Masks, Method, average
from pcc.training.methods.wiring import NORMS, Source, Wiring

PRUNER = "pruner"
"""Where the pruner lies in the target's last layer while the stage runs: no forward iterates over the parts of a
layer."""
OPEN = 3.0
"""Logits begin near it: nearly all of each map passes."""
MOMENTUM = 0.05
"""Of the running mean of the logits, by step."""


class Pruner(nn.Module):
    """A copy of a network that gives one logit a filter, averaged over the batch: (N, ...) to (filters,).

    ``last``: path of the layer that gives the network's output.
    """

    mean: torch.Tensor
    """Running mean of the logits."""

    def __init__(self, target: nn.Module, last: str, filters: int) -> None:
        super().__init__()
        self.body, self.last = copy.deepcopy(target), last
        old = self.body.get_submodule(last)
        if isinstance(old, nn.Linear):
            head: nn.Linear | nn.Conv2d = nn.Linear(old.in_features, filters)
        else:
            assert isinstance(old, nn.Conv2d)
            head = nn.Conv2d(old.in_channels, filters, 1)
        nn.init.normal_(head.weight, std=0.01)
        assert head.bias is not None
        nn.init.constant_(head.bias, OPEN)
        self.body.set_submodule(last, head)
        self.to(old.weight.device)
        self.register_buffer("mean", torch.full((filters,), OPEN, device=old.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In training the batch's logits; in evaluation their running mean."""
        if not self.training:
            return self.mean
        scores = self._scores(x).float()
        logits = scores.flatten(2).mean(2).mean(0) if scores.ndim > 2 else scores.mean(0)
        with torch.no_grad():
            self.mean.lerp_(logits, MOMENTUM)
        return logits

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        """What the last layer gives: what the network makes of that is for classes."""

        def stop(module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
            raise _Reached(output)

        hook = self.body.get_submodule(self.last).register_forward_hook(stop)
        try:
            self.body(x)
        except _Reached as reached:
            return reached.output
        finally:
            hook.remove()
        raise PccError(f"pruning-network: layer {self.last} does not run in training")


class _Reached(Exception):
    """Ends a run behind a layer."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output


class PruningNetwork(Method):
    """Trains a pruner for a frozen model, which lies in the model's last layer until the stage ends, then takes the
    filters it does not need.

    ``weight``: of the cost against the loss; ``beta``: steepness of the gates in the last epoch.
    """

    name: ClassVar[str] = "pruning-network"
    uses: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        data: Data,
        weight: float = 1.0,
        beta: float = 10.0,
    ) -> None:
        super().__init__(model, structures, epochs)
        if weight < 0 or beta < 1:
            raise PccError(
                f"pruning-network: weight is {weight:g} and beta {beta:g}; give a weight of 0 or more and a beta of 1 "
                "or more"
            )
        if epochs < 1:
            raise PccError("pruning-network: it has to be trained; give 1 epoch or more")
        wiring = Wiring(model, data.input_shape)
        self.sources: tuple[Source, ...] = tuple(wiring.sources.values())
        if not self.sources:
            raise PccError(
                f"pruning-network: every feature map of {type(model).__name__} is added to others or returned, so no "
                "filter can go"
            )
        self.weight, self.last_beta = weight, beta
        costs = _costs(model, self.sources, data.input_shape)
        self.costs = [
            cost / sum(cost * source.filters for cost, source in zip(costs, self.sources, strict=True))
            for cost in costs
        ]
        """Of a filter of each source; those of all filters add up to 1."""
        self.gates: list[torch.Tensor] = []
        self.masks = Masks(model)
        last = list(wiring.nodes)[-1]
        self.pruner = Pruner(model, last, sum(source.filters for source in self.sources))
        self.frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        self.norms = [module for module in model.modules() if isinstance(module, NORMS)]
        self.place = model.get_submodule(last)
        self.place.add_module(PRUNER, self.pruner)
        self.hooks = [model.register_forward_pre_hook(self._decide)]
        for number, source in enumerate(self.sources):
            self.hooks += [
                reader.module.register_forward_pre_hook(partial(self._gate, number, reader.span))
                for reader in source.readers
            ]

    @property
    def beta(self) -> float:
        """Of the epoch that runs."""
        return self.last_beta ** (min(self.epoch, self.epochs - 1) / max(1, self.epochs - 1))

    def parameters(self) -> list[nn.Parameter]:
        return list(self.pruner.parameters())

    def penalty(self) -> torch.Tensor:
        return (
            self.weight
            * torch.stack([cost * gate.sum() for cost, gate in zip(self.costs, self.gates, strict=True)]).sum()
        )

    @torch.no_grad()
    def update(self) -> None:
        average(self.pruner.mean)

    @torch.no_grad()
    def finish(self) -> None:
        kept = self.kept()
        for hook in self.hooks:
            hook.remove()
        delattr(self.place, PRUNER)
        for parameter in self.frozen:
            parameter.requires_grad_(True)
        for source, stays in zip(self.sources, kept, strict=True):
            source.silence(~stays)

    def metrics(self) -> dict[str, float]:
        """``filters``: the part of the filters that would stay; ``cost``: what they cost of what all do; ``beta``."""
        kept = self.kept()
        cost = sum(cost * int(stays.sum()) for cost, stays in zip(self.costs, kept, strict=True))
        return {
            "beta": self.beta,
            "filters": sum(int(stays.sum()) for stays in kept) / len(self.pruner.mean),
            "cost": cost,
        }

    def kept(self) -> list[torch.Tensor]:
        """The filters that would stay now, bool (filters,) of each source: those with a gate above 1/2, or the one of
        greatest gate."""
        logits = self.pruner.mean.split([source.filters for source in self.sources])
        return [(logit > 0) | ((logit == logit.max()) & (logit <= 0).all()) for logit in logits]

    def _decide(self, model: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Before the target runs: the gates of this batch."""
        if model.training:
            for norm in self.norms:
                norm.eval()
            logits = self.pruner(arguments[0])
            self.gates = list(torch.sigmoid(self.beta * logits).split([source.filters for source in self.sources]))
        else:
            self.gates = [stays.float() for stays in self.kept()]

    def _gate(self, source: int, span: int, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Before a reader runs: its maps (N, C, H, W), or (N, C * span), times their gates."""
        gate = self.gates[source].to(arguments[0].dtype)
        return (
            arguments[0]
            * (gate.reshape(1, -1, 1, 1) if isinstance(module, nn.Conv2d) else gate.repeat_interleave(span)),
            *arguments[1:],
        )


@torch.no_grad()
def _costs(model: nn.Module, sources: tuple[Source, ...], input_shape: tuple[int, int, int]) -> list[float]:
    """Multiplications that go with one filter of each source: its own and those of its readers with its map."""
    places = positions(model, input_shape)

    def macs(layer: nn.Module) -> int:
        return sum(
            places.get(name, 0) * module.weight.numel() for name, module in prunable(model).items() if module is layer
        )

    return [
        (macs(source.module) + sum(macs(reader.module) for reader in source.readers)) / source.filters
        for source in sources
    ]
