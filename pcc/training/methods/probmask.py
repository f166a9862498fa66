"""Probabilistic masks of weights under one global budget (ProbMask; Zhou et al., "Effective Sparsification of Neural
Networks with Global Sparsity Constraint", CVPR 2021).

Each weight has a probability s of being kept, 1 at first; the sum of all s is bounded by the budget, so layers find
their own rates. A step:

* draws a relaxed mask by Gumbel-Softmax, m = sigmoid((log s - log(1 - s) + g1 - g0) / T) with Gumbel noise g;
* weights and probabilities both take the gradient by the chain rule;
* Adam on s, and s back onto {0 <= s <= 1, sum s <= budget} by bisection (`pcc.training.methods.budget`).

The temperature T falls from 1 to 0.03 in a straight line, and masks become binary. The kept share p falls from 1 to its
final value p_f as a cubic, p = p_f + (1 - p_f) (1 - (t - t1) / (t2 - t1))^3, between the parts t1 = 0.16 and t2 = 0.6
of the stage, epoch by epoch. At the end the most probable weights stay, as many as the budget says, where the authors'
masks are drawn to the last. The last layer is left out here, as in VRPGE.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.data import Data
from pcc.training.layers import Structures
from pcc.training.method import average
from pcc.training.methods.probabilistic import Probabilistic

COLDEST = 0.03
FROM, TO = 0.16, 0.6
"""Parts of the stage between which the kept share falls."""
_TINY = 1e-20
"""Keeps logarithms finite."""


class ProbMask(Probabilistic):
    """One weight in ``rate`` stays, counted over the network; ``score_lr`` is the learning rate of the probabilities.

    Needs `backward` of the method in the loop. ``structures`` may leave layers dense and no more.
    """

    name: ClassVar[str] = "probmask"

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        data: Data,
        rate: float,
        score_lr: float = 6e-3,
        seed: int = 0,
    ) -> None:
        if epochs == 1:
            raise PccError("probmask: in its first epoch every weight may stay: give 2 epochs or more")
        super().__init__(model, structures, epochs, data=data, rate=rate, start=1.0, score_lr=score_lr, seed=seed)
        self.scores.requires_grad_()

    def mask_shape(self, weight: torch.Tensor) -> tuple[int, ...]:
        return tuple(weight.shape)

    @property
    def total(self) -> float:
        part = self.epoch / self.epochs
        left = min(max((TO - part) / (TO - FROM), 0.0), 1.0)
        return self.kept + (len(self.scores) - self.kept) * left**3

    @property
    def temperature(self) -> float:
        """Of the epoch that runs."""
        return 1 - (1 - COLDEST) * self.epoch / self.epochs

    def backward(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        self.scores.grad = None
        with self.drawn(relaxed(self.scores, self.temperature, self.random())):
            loss = compute()
            loss.backward()
        assert self.scores.grad is not None
        average(self.scores.grad)
        return loss.detach()

    def metrics(self) -> dict[str, float]:
        return {**super().metrics(), "temperature": self.temperature}


def relaxed(scores: torch.Tensor, temperature: float, random: torch.Generator) -> torch.Tensor:
    """A mask between 0 and 1 that carries the gradient to the scores; at temperature 0 it would be
    Bernoulli(scores)."""
    uniform = torch.rand(2, *scores.shape, generator=random, device=scores.device)
    ones, zeros = -(-(uniform + _TINY).log() + _TINY).log()
    return torch.sigmoid(((scores + _TINY).log() - (1 - scores + _TINY).log() + ones - zeros) / temperature)
