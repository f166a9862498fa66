"""Who teaches a network that a recipe distills (Hinton et al., "Distilling the Knowledge in a Neural Network",
2015)."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.recipe import Recipe


class Ensemble(nn.Module):
    """Several networks as one: (N, C, H, W) to the mean of their scores, (N, K), which is the geometric mean of their
    distributions."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


def teacher_of(model: nn.Module, recipe: Recipe, others: Sequence[nn.Module]) -> nn.Module | None:
    """What the stages that distill learn from: ``others``, or without any the model as it is now. None where no stage
    distills.

    Raises `PccError` for teachers that nobody would listen to.
    """
    if not any(stage.train.distill for stage in recipe.stages):
        if others:
            raise PccError(
                "no stage of the recipe learns from a teacher: give one 'distill: {weight: 0.7, temperature: 3}', or "
                "leave --teacher out"
            )
        return None
    if others and any(stage.train.distill and stage.train.distill.hints for stage in recipe.stages):
        raise PccError("hints come from the network's own dense self: leave them or --teacher out")
    teacher = copy.deepcopy(Ensemble(others) if others else model)
    return teacher.eval().requires_grad_(False)
