"""What an interrupted run needs to go on: one file, replaced after each epoch.

The file carries a digest of all that is in it: what was damaged or changed is told from what a run wrote, and what a
run wrote fits the run, whose recipe, data and weights the file names. So nothing that is read has to be looked at
again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from pcc.errors import PccError
from pcc.files import save_file
from pcc.training.data import Data
from pcc.training.folder import RESUME
from pcc.training.method import Method
from pcc.training.recipe import Recipe

Identity = dict[str, str]
"""What has to be the same for a run to go on: a digest or a text for each."""


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
        return replace(
            self,
            epoch=method.epoch,
            model=model.state_dict(),
            method=method.state_dict(),
            optimizer=optimizer.state_dict(),
        )

    def after_stage(self, model: nn.Module) -> Self:
        start = {name: value.clone() for name, value in model.state_dict().items()}
        return replace(self, stage=self.stage + 1, epoch=0, start=start, model={}, method={}, optimizer={})


def identity(recipe: Recipe, data: Data, model: nn.Module, teacher: nn.Module | None) -> Identity:
    """Of a run of this recipe on these data from these networks' weights."""
    return {
        "recipe": hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
        "data set": f"{data.name}, {data.train_size} samples of {data.input_shape}",
        "model or other weights": _digest(model),
        "teacher": _digest(teacher) if teacher else "",
    }


def _digest(model: nn.Module) -> str:
    return sha256_of(model.state_dict())


def sha256_of(value: Any) -> str:
    """Of a value made of dicts, lists, tuples, tensors and what has a plain text, with their kinds and sizes."""
    digest = hashlib.sha256()
    _take_in(value, digest.update)
    return digest.hexdigest()


def _take_in(value: Any, take: Callable[[bytes | memoryview], None]) -> None:
    if isinstance(value, torch.Tensor):
        take(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        take(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, dict | list | tuple):
        take(f"{'dict' if isinstance(value, dict) else type(value).__name__} {len(value)}".encode())
        for part in chain.from_iterable(value.items()) if isinstance(value, dict) else value:
            _take_in(part, take)
    else:
        text = repr(value)
        take(f"{type(value).__name__} {len(text)} {text}".encode())


def _sealed(run: Identity, progress: Progress) -> dict[str, Any]:
    content = {"run": run, **vars(progress)}
    return {**content, "seal": sha256_of(content)}


def save_progress(folder: Path, run: Identity, progress: Progress) -> None:
    path = folder / RESUME
    try:
        save_file(path, lambda temporary: torch.save(_sealed(run, progress), temporary))
    except RuntimeError as error:  # torch's own, as where the disk is full
        raise PccError(f"cannot write {path}: is the disk full? ({str(error).splitlines()[0]})") from None


def load_progress(folder: Path, run: Identity, device: torch.device) -> Progress:
    """`PccError` where there is nothing to resume, it was another run, or the file is not as a run wrote it."""
    path = folder / RESUME
    if not path.is_file():
        raise PccError(f"nothing to resume: {path} does not exist; run without --resume")
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        was, seal = saved.pop("run"), saved.pop("seal")
        progress = Progress(**saved)
        whole = _sealed(was, progress)["seal"] == seal
        changed = [what for what in run if was[what] != run[what]]
    except Exception as error:  # whatever a damaged file makes torch raise
        raise PccError(f"{path} cannot be read ({type(error).__name__}): remove it, and run without --resume") from None
    if not whole:
        raise PccError(
            f"{path} is damaged: it is not what a run of this pcc wrote; remove it, and run without --resume"
        )
    if changed:
        raise PccError(
            f"{path} is of another {changed[0]}: resume with what the run was begun with, or remove it and run "
            "without --resume"
        )
    return progress
