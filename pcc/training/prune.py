"""What ``pcc prune`` does: opens model, data and recipe, runs the stages, writes the checkpoint that ``pcc compile``
takes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from pcc.errors import PccError
from pcc.files import check_apart, check_own, named_files, read_limited, save_file, save_text
from pcc.frontend.imported import is_model_file
from pcc.models.preprocess import Preprocessing
from pcc.progress import Watch, quiet
from pcc.tensor_file import save_tensors
from pcc.training.data import Data, open_data
from pcc.training.evaluate import check_scores
from pcc.training.folder import BOARD, CHECKPOINT, EVENTS, LOG, REPORT, RESUME
from pcc.training.from_file import FromFile, open_file
from pcc.training.log import logged_seconds
from pcc.training.processes import Processes
from pcc.training.recipe import Recipe
from pcc.training.report import Cost, LayerCost, layer_costs, total
from pcc.training.trainer import train

Shape = tuple[int, int, int]
"""C, H, W."""
MOST_REPORT_BYTES = 64 << 20
Kind = TypeVar("Kind", bound=BaseModel)


class Report(BaseModel):
    """``report.json``: what came of a run."""

    model: str
    data: str
    recipe: str
    seed: int
    epochs: int
    accuracy: float
    """On the test set, 0..1."""
    dense_accuracy: float
    """Before the first stage that compresses, see `Outcome`."""
    seconds: float
    """Of training and measuring, without what was lost to interruptions."""
    device: str = "cpu"
    """What trained it: ``cpu``, or a GPU's name."""
    precision: str = "fp32"
    """``bf16`` where a stage wanted it and the device multiplies in it (`pcc.training.recipe.Training`)."""
    checkpoint_bytes: int
    """Of the checkpoint's tensors on disk: all weights as fp32, zeros too."""
    total: Cost
    """Counted from structures, see `pcc.training.report`; no file is that small."""
    layers: list[LayerCost]
    compile: str
    """The command line that makes a package of the checkpoint."""


@dataclass(frozen=True)
class Opened:
    """A model to train."""

    module: nn.Module
    input_shape: Shape | None
    preprocessing: Preprocessing | None
    file: FromFile | None = None
    """Where the model is from a file that holds it whole."""


def prune(
    model: str,
    data_name: str,
    recipe: Recipe,
    folder: Path,
    process: Processes,
    *,
    recipe_name: str = "recipe",
    weights: str | None = None,
    teachers: Sequence[tuple[str, str]] = (),
    input_shape: Shape | None = None,
    resume: bool = False,
    watch: Watch = quiet,
) -> Report:
    """Runs a recipe and, in the first process, writes checkpoint, report and log to a folder.

    ``teachers`` are models and their weights, as `open_model` takes them.
    """
    check_results_apart(folder, model, weights, *(files for _, files in teachers))
    check_folder(folder, model, resume)
    with process.first_ahead():
        if is_model_file(model):
            data = open_data(data_name, input_shape=input_shape, preprocessing=None, augment=recipe.augment)
            opened = open_model_file(model, weights, data.input_shape)
        else:
            opened = open_model(model, weights, recipe.seed, input_shape)
            data = open_data(
                data_name, input_shape=opened.input_shape, preprocessing=opened.preprocessing, augment=recipe.augment
            )
        module = opened.module
        classes = check_outputs(module, data)
        teaching = [_teacher(*teacher, recipe.seed, input_shape, data, classes) for teacher in teachers]
    outcome = train(module, data, recipe, folder, process, teachers=teaching, resume=resume, watch=watch)
    layers = layer_costs(module, recipe.stages, data.input_shape)
    report = Report(
        model=model,
        data=data_name,
        recipe=recipe_name,
        seed=recipe.seed,
        epochs=outcome.epochs,
        accuracy=outcome.accuracy,
        dense_accuracy=outcome.dense_accuracy,
        seconds=outcome.seconds,
        device=process.device_name,
        precision="bf16" if recipe.has_bf16 and process.multiplies_bf16 else "fp32",
        checkpoint_bytes=sum(value.nbytes for value in module.state_dict().values()),
        total=total(layers),
        layers=layers,
        compile=_compile_command(model, data.input_shape, folder),
    )
    if process.first:
        save_checkpoint(module, folder / CHECKPOINT)
        if file := opened.file:
            saved = folder / saved_name(model)
            save_file(saved, lambda path: file.save(module, path, saved.suffix))
        save_text(folder / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def open_model(model: str, weights: str | None, seed: int, input_shape: Shape | None = None) -> Opened:
    """A zoo model or ``FILE.py:factory`` to be trained: with a checkpoint's weights, or those its constructor draws
    from the seed."""
    from pcc.frontend import load_factory
    from pcc.frontend.checkpoint import load_weights
    from pcc.models import create, entry
    from pcc.models.registry import OWN_WEIGHTS

    torch.manual_seed(seed)
    if ".py" in model:
        if weights in OWN_WEIGHTS:
            raise PccError(f"--weights {weights} is for zoo models; {model} takes a checkpoint file")
        module = load_factory(model)
        if weights and weights != "none":
            load_weights(module, weights)
        return Opened(module, input_shape, None)
    found = entry(model)
    if input_shape is not None:
        raise PccError(f"--input-shape is for FILE.py:factory; {found.name} takes {_times(found.input_shape[1:])}")
    weights = weights or ("trained" if found.weights else "none")
    module = found.factory() if weights == "none" else create(model, weights)
    return Opened(module, found.input_shape[1:], found.preprocessing)


def open_model_file(model: str, weights: str | None, input_shape: Shape) -> Opened:
    """The model of an ONNX file or a ``.pt2`` archive, which holds its weights."""
    if weights is not None:
        raise PccError(f"--weights {weights} is for models without weights of their own; {model} holds its weights")
    file = open_file(model, input_shape)
    return Opened(file.module, input_shape, None, file)


def saved_name(model: str) -> str:
    """What the pruned model of a file is called: ``model.onnx``, ``model.pt2``."""
    return f"model{Path(model).suffix.lower()}"


def check_results_apart(folder: Path, model: str, *read: str | None) -> None:
    """`PccError` where a compressed network would be written over a file, a ``FILE`` or ``FILE:KEY``, that it is made
    from."""
    results = [folder / CHECKPOINT, *([folder / saved_name(model)] if is_model_file(model) else [])]
    check_apart(results, *named_files(model, *read))


def check_folder(folder: Path, model: str, resume: bool) -> None:
    """`PccError` for a folder where a run would write over what is no run's, or over an interrupted run that has come
    past the network as it came in, unless it is to ``resume``."""
    seconds, report = logged_seconds(folder / LOG), saved_report(folder / REPORT, Report)
    known = [found is not None for file, found in ((LOG, seconds), (REPORT, report)) if os.path.lexists(folder / file)]
    is_own = bool(known) and all(known)
    results = [LOG, REPORT, RESUME, CHECKPOINT, *([saved_name(model)] if is_model_file(model) else [])]
    check_own([*(folder / name for name in results), *(folder / BOARD).glob(f"{EVENTS}*")], is_own, "pcc prune")
    if resume or not (folder / RESUME).exists() or seconds is None or len(seconds) < 2:
        return
    if report is None or report.seconds != sum(seconds):  # a run writes its report last, about what the log has
        raise PccError(
            f"{folder / RESUME} is of a run that was interrupted: add --resume to go on with it, or remove that file "
            "to begin anew"
        )


def saved_report(path: Path, kind: type[Kind]) -> Kind | None:
    """The report that an earlier run wrote; None for what is none."""
    try:
        return kind.model_validate_json(read_limited(path, "report", MOST_REPORT_BYTES))
    except (PccError, ValidationError):
        return None


def _teacher(model: str, weights: str, seed: int, input_shape: Shape | None, data: Data, classes: int) -> nn.Module:
    module = open_model(model, weights, seed, input_shape if ".py" in model else None).module
    try:
        taught = check_outputs(module, data)
    except PccError as error:
        raise PccError(f"teacher {model}: {error}") from None
    if taught != classes:
        raise PccError(f"teacher {model} tells {taught} classes apart, the network {classes}")
    return module


@torch.no_grad()
def check_outputs(module: nn.Module, data: Data) -> int:
    """The classes that a network tells apart. `PccError` if it does not take the data's inputs, or does not tell their
    classes apart: one input runs through it."""
    try:
        scores = module.eval()(torch.zeros(1, *data.input_shape))
    except Exception as error:  # a network is the user's own code
        raise PccError(
            f"the network cannot take an input of {_times(data.input_shape)}, as {data.name} has: "
            f"{type(error).__name__}: {error}"
        ) from error
    check_scores(scores, "one input")
    data.check_labels(scores.shape[1])
    return int(scores.shape[1])


def save_checkpoint(module: nn.Module, path: Path) -> None:
    """The module's state as safetensors, under its plain names."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    save_file(path, lambda temporary: save_tensors(state, temporary))


def _compile_command(model: str, input_shape: Shape, folder: Path) -> str:
    if is_model_file(model):
        return f"pcc compile {folder / saved_name(model)} -o {folder / 'package'}"
    shape = f" --input-shape {','.join(map(str, (1, *input_shape)))}" if ".py" in model else ""
    return f"pcc compile {model} --weights {folder / CHECKPOINT}{shape} -o {folder / 'package'}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
