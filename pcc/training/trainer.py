"""The loop: runs the stages of a recipe on a model and data, logs each epoch, and can go on where it was stopped.

Everything random hangs on the recipe's seed, the stage and the epoch, never on what ran before, so a resumed run computes what an uninterrupted one
would have.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pcc.errors import PccError
from pcc.training.data import Data
from pcc.training.evaluate import accuracy, sparsity
from pcc.training.log import Log
from pcc.training.method import Method
from pcc.training.processes import Processes
from pcc.training.recipe import Recipe, Stage, Training
from pcc.training.resume import Progress, load_progress, save_progress

Watcher = Callable[[str, float], None]
"""Is told what runs ("admm, epoch 3 of 12, loss 0.123") and the part of the epoch that is over, 0..1, after each step."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    accuracy: float
    """On the test set, 0..1, with the weights of the last epoch, in fp32."""
    dense_accuracy: float
    """Of the model as it came in."""
    seconds: float
    """Of all epochs, those before an interruption too."""
    rows: tuple[dict[str, Any], ...]
    """The log."""


def train(model: nn.Module, data: Data, recipe: Recipe, folder: Path, here: Processes, *, resume: bool = False, watch: Watcher | None = None) -> Outcome:
    """Runs the recipe's stages on the model, in place.

    ``folder`` gets the log and, after each epoch, what a resumed run needs. Raises `PccError` for a loss that is not finite; what was saved after the
    last epoch stays.
    """
    model.to(here.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    if resume:
        progress = load_progress(folder, recipe)
    else:
        progress = Progress().log({"stage": "as it came in", "accuracy": accuracy(model, data, here), "sparsity": sparsity(model)})
    log = Log(folder, progress.rows) if here.first else None
    if progress.start:
        model.load_state_dict(progress.start)
    loop = _Loop(model, data, here, teacher, watch)

    for number, stage in enumerate(recipe.stages[progress.stage :], start=progress.stage):
        torch.manual_seed(_seed(recipe, number, -1))
        method = stage.make(model, data=data, seed=recipe.seed)
        optimizer = make_optimizer(method, stage.train)
        if progress.epoch:
            model.load_state_dict(progress.model)
            method.epoch = progress.epoch
            method.load_state_dict(progress.method)
            optimizer.load_state_dict(progress.optimizer)
        else:
            method.begin()
        module = here.wrap(model)
        while method.epoch < method.epochs:
            start = perf_counter()
            torch.manual_seed(_seed(recipe, number, method.epoch))
            loss = loop.epoch(stage, recipe.seed, number, method, module, optimizer)
            row = {"stage": stage.method, "epoch": method.epoch + 1, "loss": loss, "accuracy": accuracy(model, data, here, bf16=stage.train.precision == "bf16")}
            row |= {**method.metrics(), "sparsity": sparsity(model)}
            method.end_epoch()
            progress = _record(progress, log, row, start)
            if here.first:
                save_progress(folder, recipe, progress.after_epoch(model, method, optimizer))
        start = perf_counter()
        method.finish()
        if method.ends_changed:
            progress = _record(progress, log, {"stage": f"{stage.method}, done", "accuracy": accuracy(model, data, here), "sparsity": sparsity(model)}, start)
        progress = progress.after_stage(model)
        if here.first:
            save_progress(folder, recipe, progress)
    if log:
        log.close()
    seconds = sum(row.get("seconds", 0.0) for row in progress.rows)
    return Outcome(accuracy(model, data, here), progress.rows[0]["accuracy"], seconds, progress.rows)


def make_optimizer(method: Method, settings: Training) -> torch.optim.Optimizer:
    """Weight decay is for weights, not for biases and batch norms."""
    parameters = method.parameters()
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return (torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW)(groups, lr=settings.lr)


def learning_rate(settings: Training, done: float) -> float:
    """At a part of the stage, 0..1."""
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "one-cycle":
        return settings.lr * min(done / 0.2, (1 - done) / 0.8)
    return settings.lr


@dataclass
class _Loop:
    """One epoch of any stage."""

    model: nn.Module
    data: Data
    here: Processes
    teacher: nn.Module
    watch: Watcher | None

    def epoch(self, stage: Stage, seed: int, number: int, method: Method, module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """Trains one epoch and gives its mean loss."""
        settings, steps = stage.train, self.data.steps(stage.train.batch)
        what = f"{stage.method}, epoch {method.epoch + 1} of {method.epochs}"
        module.train()
        total = 0.0
        batches = self.data.batches(1000 * number + method.epoch, settings.batch, seed=seed, rank=self.here.rank, ranks=self.here.ranks)
        for step, (x, y) in enumerate(batches):
            rate = learning_rate(settings, (method.epoch + step / steps) / method.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            x, y = x.to(self.here.device, memory_format=torch.channels_last), y.to(self.here.device)
            optimizer.zero_grad()
            loss = float(method.backward(lambda x=x, y=y: self.loss(settings, module, x, y)))
            if not math.isfinite(loss):
                raise PccError(f"the loss is {loss} in stage {number + 1} ({what}, step {step + 1}): try a lower lr; the last epoch's state is kept")
            if settings.clip:
                nn.utils.clip_grad_norm_(method.parameters(), settings.clip)
            optimizer.step()
            method.after_step()
            total += loss
            if self.watch:
                self.watch(f"{what}, loss {loss:.3f}", (step + 1) / steps)
        (mean,) = self.here.total(total / steps / self.here.ranks)
        return mean

    def loss(self, settings: Training, module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, and the teacher's opinion where the recipe distils."""
        with torch.autocast(self.here.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            scores = module(x)
            loss = F.cross_entropy(scores.float(), y, label_smoothing=settings.label_smoothing)
            if settings.distill is None:
                return loss
            with torch.no_grad():
                opinion = self.teacher(x)
        temperature, weight = settings.distill.temperature, settings.distill.weight
        student, teacher = (F.log_softmax(one.float() / temperature, dim=1) for one in (scores, opinion))
        return (1 - weight) * loss + weight * temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _record(progress: Progress, log: Log | None, row: dict[str, Any], start: float) -> Progress:
    row["seconds"] = perf_counter() - start
    if log:
        log.add(row)
    return progress.log(row)


def _seed(recipe: Recipe, stage: int, epoch: int) -> int:
    """Of everything random that is no batch: drop-out, masks."""
    return (recipe.seed * 100 + stage) * 10_000 + epoch + 1
