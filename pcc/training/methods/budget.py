"""One budget for a whole network: how many of its filters or weights stay, wherever they are (Zhou et al., CVPR 2021
and NeurIPS 2021).

Probabilities s of being kept live in {0 <= s <= 1, sum s <= total}. Layers find their own rates there.
"""

import numpy as np
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.budget import largest
from pcc.sparsity.unstructured import Unstructured
from pcc.training.evaluate import positions
from pcc.training.layers import Structures, bind, prunable

_HALVINGS = 30
"""Of an interval of at most the largest s: less than a fp32 step of 1 is left."""


def spanned(
    model: nn.Module, structures: Structures, method: str, input_shape: tuple[int, int, int]
) -> dict[str, nn.Module]:
    """The layers that share the budget, by module path: all but the one that runs last, whose outputs are the classes,
    and those that ``structures`` leaves dense."""
    for selector, structure in structures.items():
        if structure is not None:
            raise PccError(
                f"{method}: one rate is for all layers together, '{selector}' has no structure of its own; dense "
                "leaves it as it is"
            )
    every = dict(structures)
    every.setdefault("@all", Unstructured(1))
    layers = {layer.name: layer.module for layer in bind(model, every)}
    layers.pop([name for name in positions(model, input_shape) if name in prunable(model)][-1], None)
    if not layers:
        raise PccError(f"{method}: no layer is left to prune: the last one and dense ones stay as they are")
    return layers


@torch.no_grad()
def onto_budget(scores: torch.Tensor, total: float) -> torch.Tensor:
    """The nearest point of {0 <= s <= 1, sum s <= total}: clip(scores - v, 0, 1) with the least v >= 0 that meets the
    sum, found by bisection.

    ``scores`` are finite, of any shape; ``total`` is at least 0. The sum is met from below, to fp32 steps of s. Nothing
    waits for a GPU's answer.
    """
    low = torch.zeros((), dtype=torch.float64, device=scores.device)
    high = scores.max().double().clamp_min(0)
    fits = scores.clamp(0, 1).sum(dtype=torch.float64) <= total
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        over = (scores - middle).clamp_(0, 1).sum(dtype=torch.float64) > total
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return (scores - torch.where(fits, 0.0, high)).clamp_(0, 1)


def most_probable(scores: np.ndarray, layers: np.ndarray, count: int) -> np.ndarray:
    """The mask that is kept for good: the ``count`` largest scores, flat, ties by lower index; of each layer at least
    the largest.

    ``layers`` has the number of each score's layer, ascending. That every layer keeps something is ours: without, a
    network may end cut in two. What has score 0 is not kept beyond that, so the count may not be reached. Raises
    `PccError` if there are more layers than ``count``.
    """
    firsts = np.unique(layers, return_index=True)[1]
    if count < len(firsts):
        raise PccError(f"a budget of {count} does not leave something of each of {len(firsts)} layers: lower the rate")
    ranked = scores.astype(np.float64)
    best = [first + int(part.argmax()) for first, part in zip(firsts, np.split(ranked, firsts[1:]), strict=True)]
    ranked[best] += 2
    return largest(ranked, count) & (ranked > 0)
