"""Sparse forward and backward passes: the variance reduced policy gradient of filter masks (VRPGE; Zhou et al., NeurIPS
2021).

Each filter has a probability s of being kept; the sum of all s is bounded by the budget. A step:

* draws K independent masks m ~ Bernoulli(s) and gets the loss of each;
* weights: the gradient by the chain rule, through the filters that are kept only, averaged over the draws;
* probabilities: no chain rule, and so no dense pass, but the policy gradient with the mean loss as baseline,
  g = sum_j (loss_j - mean loss) / (K - 1) * score(m_j), clipped to norm 3;
* Adam on s, and s back onto {0 <= s <= 1, sum s <= budget} by bisection (`pcc.training.methods.budget`).

The score is d log p(m) / ds = (m - s) / (s (1 - s)) in the paper; the authors' code has (m - s) / sqrt(s (1 - s)),
which is the same gradient preconditioned with the standard deviation of m, and the default here. The last layer is left
out. At the end the most probable filters stay, as many as the budget says, where the authors draw a last mask, and
`Train` fine-tunes.

What stays of the paper's speed is for the compiler: a mask is a multiplication here, a filter that is absent in a draw
is computed and not used. A filter that is absent gives its bias, or what its batch norm makes of zero. The authors clip
the gradients of weights and scores together; those of the weights are the recipe's business (``clip``).
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.training.data import Data
from pcc.training.layers import Structures
from pcc.training.method import average
from pcc.training.methods.probabilistic import Probabilistic

CLIP = 3.0
"""Largest norm of the structure gradient."""


class Vrpge(Probabilistic):
    """One filter in ``rate`` stays, counted over the network; ``draws`` masks a step; ``score_lr`` is the learning rate
    of the probabilities.

    Needs `backward` of the method in the loop. ``structures`` may leave layers dense and no more.
    """

    name: ClassVar[str] = "vrpge"

    def __init__(
        self,
        model: nn.Module,
        structures: Structures,
        epochs: int,
        *,
        data: Data,
        rate: float,
        draws: int = 2,
        preconditioned: bool = True,
        score_lr: float = 6e-3,
        seed: int = 0,
    ) -> None:
        if draws < 2:
            raise PccError(f"vrpge: {draws} draws a step have no mean to compare with: give 2 or more")
        budget(1, rate)
        super().__init__(model, structures, epochs, data=data, rate=rate, start=1 / rate, score_lr=score_lr, seed=seed)
        self.draws, self.preconditioned = draws, preconditioned

    def mask_shape(self, weight: torch.Tensor) -> tuple[int, ...]:
        return (weight.shape[0], *[1] * (weight.ndim - 1))

    def backward(self, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        random = self.random()
        masks = torch.stack([torch.bernoulli(self.scores, generator=random) for _ in range(self.draws)])
        losses = []
        for mask in masks:
            with self.drawn(mask):
                loss = compute()
                (loss / self.draws).backward()
            losses.append(loss.detach())
        self.scores.grad = structure_gradient(
            self.scores, masks, average(torch.stack(losses)), preconditioned=self.preconditioned
        )
        nn.utils.clip_grad_norm_([self.scores], CLIP)
        return torch.stack(losses).mean()


def structure_gradient(
    scores: torch.Tensor, masks: torch.Tensor, losses: torch.Tensor, *, preconditioned: bool
) -> torch.Tensor:
    """(N,): an unbiased estimate of d E[loss] / ds, times sqrt(s (1 - s)) if preconditioned, from masks (K, N) and
    their losses (K,).

    The advantages sum up to 0, so masks may be compared with their mean as well as with s: where all draws agree the
    estimate is 0 and not what rounding leaves of 0, which Adam would blow up. A probability of 0 or 1 has no gradient:
    its mask does not vary.
    """
    advantages = (losses - losses.mean()) / (len(losses) - 1)
    variance = scores * (1 - scores)
    scale = variance.sqrt() if preconditioned else variance
    return torch.where(variance > 0, advantages @ (masks - masks.mean(dim=0)) / scale, 0.0)
