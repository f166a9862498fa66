"""What ``pcc prune`` does: opens model, data and recipe, runs the stages, writes the checkpoint that ``pcc compile`` takes."""

import os
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import save_file
from torch import nn

from pcc.errors import PccError
from pcc.training.data import open_data
from pcc.training.processes import processes
from pcc.training.recipe import Recipe
from pcc.training.trainer import Watcher, train

CHECKPOINT, REPORT = "model.safetensors", "report.json"


class Report(BaseModel):
    """``report.json``: what came of a run."""

    model: str
    data: str
    seed: int
    epochs: int
    accuracy: float
    """On the test set, 0..1."""
    dense_accuracy: float
    seconds: float
    """Of training."""


def prune(
    model: str, data_name: str, recipe: Recipe, folder: Path, *, weights: str | None = None, resume: bool = False, threads: int | None = None, watch: Watcher | None = None
) -> Report | None:
    """Runs a recipe and writes checkpoint, report and log to a folder; None in processes but the first."""
    if threads:
        torch.set_num_threads(threads)
    module = open_module(model, weights, recipe.seed)
    with processes() as here:
        data = open_data(data_name, augment=recipe.augment)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PccError(f"cannot write to {folder}: {error.strerror}") from None
        outcome = train(module, data, recipe, folder, here, resume=resume, watch=watch if here.first else None)
        if not here.first:
            return None
        epochs = sum("loss" in row for row in outcome.rows)
        report = Report(
            model=model,
            data=data_name,
            seed=recipe.seed,
            epochs=epochs,
            accuracy=outcome.accuracy,
            dense_accuracy=outcome.dense_accuracy,
            seconds=outcome.seconds,
        )
        save_checkpoint(module, folder / CHECKPOINT)
        (folder / REPORT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return report


def open_module(model: str, weights: str | None, seed: int) -> nn.Module:
    """A zoo model or ``FILE.py:factory`` to be trained: with a checkpoint's weights, or those its constructor draws from the seed."""
    from pcc.frontend import load_factory
    from pcc.models import create, entry

    torch.manual_seed(seed)
    if ".py" in model:
        module = load_factory(model)
        if weights and weights != "none":
            from pcc.frontend.checkpoint import load_weights

            load_weights(module, weights)
        return module
    if weights is None:
        weights = "imagenet" if entry(model).weights else "none"
    return entry(model).factory() if weights == "none" else create(model, weights)


def save_checkpoint(module: nn.Module, path: Path) -> None:
    """The module's state as safetensors, under its plain names."""
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, temporary)
    os.replace(temporary, path)
