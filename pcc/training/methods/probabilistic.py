"""What methods with random masks share: a probability for each filter or weight, masks in the forward pass, one budget
for the network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.training.data import Data
from pcc.training.layers import Structures
from pcc.training.method import Masks, Method
from pcc.training.methods.budget import most_probable, onto_budget, spanned


class Probabilistic(Method, ABC):
    """Learns probabilities under a budget; while it runs, a layer's weight is its parameter times a mask.

    The mask is a random one inside `drawn`, else the one that would be kept if the method ended now: what an evaluation
    sees. Masks follow from (seed, epoch, step) alone, so they are those of an uninterrupted run and the same in all
    processes.
    """

    uses: ClassVar[tuple[str, ...]] = ("data", "seed")

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        data: Data,
        rate: float,
        start: float,
        score_lr: float,
        seed: int,
    ) -> None:
        super().__init__(model, {}, epochs)
        if epochs < 1:
            raise PccError(f"{self.name}: probabilities are learnt: give 1 epoch or more")
        if score_lr <= 0:
            raise PccError(f"{self.name}: score_lr is {score_lr:g}: give a positive number")
        self.masks = Masks(model)
        self.spanned = spanned(model, structures, self.name, data.input_shape)
        owners: dict[int, str] = {}
        self.owner = {
            name: owners.setdefault(id(layer.get_parameter("weight")), name) for name, layer in self.spanned.items()
        }
        """The layer whose mask each one has: of layers that are tied, which have one weight, the first."""
        weights = {name: self.spanned[name].get_parameter("weight") for name in owners.values()}
        self.shapes = {name: self.mask_shape(weight) for name, weight in weights.items()}
        self.sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        self.kept = budget(sum(self.sizes), rate)
        """How many filters or weights stay in the end."""
        self.scores = torch.full((sum(self.sizes),), start, device=next(iter(weights.values())).device)
        """The probabilities, of one layer after the other."""
        self.optimizer = torch.optim.Adam([self.scores], lr=score_lr)
        self.seed, self.step = seed, 0
        self._drawn: dict[str, torch.Tensor] | None = None
        self._chosen: dict[str, torch.Tensor] | None = None
        for name, layer in self.spanned.items():
            parametrize.register_parametrization(layer, "weight", _Masked(partial(self._mask, name)))
        self.chosen()

    @abstractmethod
    def mask_shape(self, weight: torch.Tensor) -> tuple[int, ...]:
        """Of a layer's mask: it is broadcast over the weight."""

    @property
    def total(self) -> float:
        """What the probabilities may sum up to in the epoch that runs."""
        return self.kept

    def random(self) -> torch.Generator:
        """The random numbers of this step."""
        (number,) = np.random.SeedSequence([self.seed, self.epoch, self.step]).generate_state(1, np.uint64)
        return torch.Generator(self.scores.device).manual_seed(int(number >> np.uint64(1)))

    @contextmanager
    def drawn(self, mask: torch.Tensor) -> Generator[None]:
        """The model runs with this mask, flat, of all layers."""
        self._drawn = self._by_layer(mask)
        try:
            yield
        finally:
            self._drawn = None

    def chosen(self) -> dict[str, torch.Tensor]:
        """The mask of each layer that would be kept now, fp32."""
        if self._chosen is None:
            layers = np.repeat(np.arange(len(self.sizes)), self.sizes)
            try:
                mask = most_probable(self.scores.detach().cpu().numpy(), layers, int(self.total))
            except PccError as error:
                raise PccError(f"{self.name}: {error}") from None
            self._chosen = self._by_layer(torch.from_numpy(mask).to(self.scores))
        return self._chosen

    @torch.no_grad()
    def after_step(self) -> None:
        self.masks.apply()
        self.optimizer.step()
        self.scores.copy_(onto_budget(self.scores, self.total))
        self.step += 1
        self._chosen = None

    def update(self) -> None:
        self.step = 0
        self._chosen = None

    @torch.no_grad()
    def finish(self) -> None:
        for name, layer in self.spanned.items():
            kept = self.chosen()[self.owner[name]] != 0
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            layer.get_parameter("weight").masked_fill_(~kept, 0)

    def metrics(self) -> dict[str, float]:
        scores = self.scores.detach()
        return {
            "budget": self.total / len(scores),
            "undecided": float(((scores > 0.01) & (scores < 0.99)).float().mean()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores.detach(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.scores.copy_(state["scores"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._chosen = None

    def _mask(self, name: str) -> torch.Tensor:
        return (self._drawn or self.chosen())[self.owner[name]]

    def _by_layer(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = mask.split(self.sizes)
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


class _Masked(nn.Module):
    """A weight times the mask of the moment."""

    def __init__(self, mask: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask()
