"""What an interrupted run needs to go on: one file, written after each epoch to a temporary name and renamed."""

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.method import Method
from pcc.training.recipe import Recipe

FILE = "resume.pt"


@dataclass(frozen=True)
class Progress:
    """How far a run has come: ``epoch`` epochs of stage ``stage`` (from 0) are over."""

    stage: int = 0
    epoch: int = 0
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    """The model's state when the stage began; empty at the start of a run."""
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    """The model's state now, with what the method has added to it; empty where no epoch of the stage is over."""
    method: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    """The log so far."""

    def log(self, row: dict[str, Any]) -> Self:
        return replace(self, rows=(*self.rows, row))

    def after_epoch(self, model: nn.Module, method: Method, optimizer: torch.optim.Optimizer) -> Self:
        return replace(self, epoch=method.epoch, model=model.state_dict(), method=method.state_dict(), optimizer=optimizer.state_dict())

    def after_stage(self, model: nn.Module) -> Self:
        start = {name: value.clone() for name, value in model.state_dict().items()}
        return replace(self, stage=self.stage + 1, epoch=0, start=start, model={}, method={}, optimizer={})


def save_progress(folder: Path, recipe: Recipe, progress: Progress) -> None:
    temporary = folder / f".{FILE}.tmp"
    torch.save({"recipe": _digest(recipe), **vars(progress)}, temporary)
    os.replace(temporary, folder / FILE)


def load_progress(folder: Path, recipe: Recipe) -> Progress:
    """`PccError` where there is nothing to resume, or it was another recipe."""
    path = folder / FILE
    if not path.is_file():
        raise PccError(f"nothing to resume: {path} does not exist; run without --resume")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        recipe_was = saved.pop("recipe")
        progress = Progress(**saved)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise PccError(f"{path} cannot be read ({type(error).__name__}): run without --resume") from None
    if recipe_was != _digest(recipe):
        raise PccError(f"{path} is of another recipe: resume with the recipe it was begun with, or run without --resume")
    return progress


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()
