"""The loop: runs the stages of a recipe on a model and data, logs each epoch, and can go on where it was stopped.

Everything random hangs on the recipe's seed, the stage and the epoch, never on what ran before, so a resumed run
computes what an uninterrupted one would have. It is the same in all processes, so that methods draw the same masks.
"""

import copy
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from pcc.errors import PccError
from pcc.frontend.checkpoint import check_finite
from pcc.progress import Watch, quiet
from pcc.training import folder as files
from pcc.training.data import Data
from pcc.training.evaluate import accuracy, check_scores, sparsity
from pcc.training.layers import check_weights, prunable
from pcc.training.log import Log
from pcc.training.memory_format import lay_out, memory_format
from pcc.training.method import Method
from pcc.training.processes import Processes
from pcc.training.recipe import Recipe, Stage
from pcc.training.resume import Identity, Progress, identity, load_progress, save_progress
from pcc.training.steps import Steps, make_optimizer
from pcc.training.teacher import teacher_of

BEFORE = "as it came in"
"""The stage in the log's first row."""
PRUNED = 0.01
"""Share of zeros from which on a network counts as pruned."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    accuracy: float
    """On the test set, 0..1, with the weights of the last epoch, in fp32."""
    dense_accuracy: float
    """Before the first stage that compresses: of the model as it came in, or as the plain training that the recipe
    begins with left it; of one that came in pruned, and is only trained, as it came in."""
    seconds: float
    """Of all epochs, those before an interruption too."""
    rows: tuple[dict[str, Any], ...]
    """The log."""

    @property
    def epochs(self) -> int:
        return sum("loss" in row for row in self.rows)


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    folder: Path,
    process: Processes,
    *,
    teachers: Sequence[nn.Module] = (),
    resume: bool = False,
    watch: Watch = quiet,
) -> Outcome:
    """Runs the recipe's stages on the model, in place.

    Trains in fp32 where the recipe wants bf16 and the device does not multiply in it. ``folder`` gets the log and,
    after each epoch, what a resumed run needs. Stages that distill learn from ``teachers``, see `teacher_of`. ``watch``
    is told the part of the whole run. Raises `PccError` for what cannot work before the first epoch begins, and for a
    loss that is not finite; what was saved after the last epoch stays.
    """
    lay_out(model.to(process.device), memory_format(model))
    process.share(model)
    data = data.on(process.device)
    epochs = check(model, data, recipe, process)
    teacher = teacher_of(model, recipe, teachers)
    if teacher:
        _check_teacher(teacher)
        lay_out(teacher.to(process.device), memory_format(teacher))
    run_identity = identity(recipe, data, model, teacher)
    progress = load_progress(folder, run_identity, process.device) if resume else Progress()
    if not process.multiplies_bf16:
        recipe = recipe.in_fp32()
    with ExitStack() as stack:
        with _begun(folder) if process.first and not resume else nullcontext():
            log = stack.enter_context(closing(Log(folder, progress.rows))) if process.first else None
            run = _Run(model, data, recipe, process, teacher, folder, run_identity, log, progress, watch, epochs)
            run.begin()
        for number in range(progress.stage, len(recipe.stages)):
            run.stage(number)
    rows = run.progress.rows
    return Outcome(rows[-1]["accuracy"], _dense_accuracy(rows), sum(row["seconds"] for row in rows), rows)


@contextmanager
def _begun(folder: Path) -> Generator[None]:
    """The folder of a new run. What fails in the block comes before there is anything to go on from, and leaves
    nothing."""
    made = files.begin(folder)
    try:
        yield
    except BaseException:
        files.withdraw(folder, made)
        raise


@dataclass
class _Run:
    """What the stages of a run share, and how far it has come."""

    model: nn.Module
    data: Data
    recipe: Recipe
    process: Processes
    teacher: nn.Module | None
    folder: Path
    identity: Identity
    log: Log | None
    progress: Progress
    watch: Watch
    epochs: list[int]
    """Of each stage."""
    layers: tuple[nn.Conv2d | nn.Linear, ...] = field(init=False)
    """The model's, without those that methods have while they run."""

    def __post_init__(self) -> None:
        self.layers = tuple(prunable(self.model).values())

    def begin(self) -> None:
        """Measures the model as it came in, or takes up the one of the stage that goes on."""
        if not self.progress.rows:
            self._measured(BEFORE, perf_counter())
            self._save(self.progress)
        if self.progress.start:
            self.model.load_state_dict(self.progress.start)

    def stage(self, number: int) -> None:
        """From its first epoch, or the first that is not over, to its end."""
        stage = self.recipe.stages[number]
        self._seed(number, -1)
        method = stage.make(self.model, data=self.data, seed=self.recipe.seed)
        optimizer = make_optimizer(method, stage.train)
        if self.progress.epoch:
            self.model.load_state_dict(self.progress.model)
            method.epoch = self.progress.epoch
            method.load_state_dict(self.progress.method)
            optimizer.load_state_dict(self.progress.optimizer)
        else:
            method.begin()
        if method.epoch < method.epochs:
            self._epochs(number, stage, method, optimizer)
        start = perf_counter()
        self._seed(number, method.epochs)
        method.finish()
        if method.ends_changed or stage.train.precision == "bf16":
            self._measured(f"{stage.method}, done", start)
        self.progress = self.progress.after_stage(self.model)
        self._save(self.progress)

    def _epochs(self, number: int, stage: Stage, method: Method, optimizer: torch.optim.Optimizer) -> None:
        module = self.process.wrap(self.model)
        steps = Steps(
            number,
            stage,
            self.recipe.seed,
            self.model,
            module,
            method,
            optimizer,
            self.data,
            self.process,
            self.teacher,
            self._watch(number, method),
        )
        while method.epoch < method.epochs:
            start = perf_counter()
            self._seed(number, method.epoch)
            row = {"stage": stage.method, "epoch": method.epoch + 1, "loss": steps.epoch()}
            row |= {"accuracy": accuracy(self.model, self.data, self.process, bf16=stage.train.precision == "bf16")}
            row |= {**method.metrics(), "sparsity": sparsity(self.layers)}
            method.end_epoch()
            self._record(row, start)
            self._save(self.progress.after_epoch(self.model, method, optimizer))

    def _measured(self, what: str, start: float) -> None:
        self._record(
            {
                "stage": what,
                "accuracy": accuracy(self.model, self.data, self.process),
                "sparsity": sparsity(self.layers),
            },
            start,
        )

    def _record(self, row: dict[str, Any], start: float) -> None:
        row["seconds"] = perf_counter() - start
        self.progress = self.progress.log(row)
        if self.log:
            self.log.add(row)

    def _save(self, progress: Progress) -> None:
        if self.process.first:
            save_progress(self.folder, self.identity, progress)

    def _watch(self, number: int, method: Method) -> Watch:
        """Turns the part of an epoch into the part of the run."""
        before, total = sum(self.epochs[:number]), sum(self.epochs)
        return lambda what, done: self.watch(what, (before + method.epoch + done) / total)

    def _seed(self, number: int, epoch: int) -> None:
        """Of everything random that is no batch: drop-out, masks."""
        torch.manual_seed((self.recipe.seed * 100 + number) * 10_000 + epoch + 1)


def check(model: nn.Module, data: Data, recipe: Recipe, process: Processes) -> list[int]:
    """The epochs of each stage. `PccError` for what would only fail in the middle of a run: structures that layers
    cannot have, batches, options."""
    if not prunable(model):
        raise PccError("the model has no convolution or linear layer")
    check_weights(model)
    check_finite(model)
    epochs = []
    for number, stage in enumerate(recipe.stages, start=1):
        try:
            epochs.append(_dry_run(copy.deepcopy(model), data, stage, recipe.seed, process))
        except PccError as error:
            raise PccError(f"stage {number}, {stage.method}: {error}") from None
    for batch in sorted(
        {stage.train.batch // process.ranks for stage, count in zip(recipe.stages, epochs, strict=True) if count}
    ):
        _check_training(copy.deepcopy(model), data, batch, process)
    return epochs


def _check_teacher(teacher: nn.Module) -> None:
    try:
        check_finite(teacher)
    except PccError as error:
        raise PccError(f"teacher: {error}") from None


def _check_training(model: nn.Module, data: Data, batch: int, process: Processes) -> None:
    """Runs the network, which is the user's own code, as in training. Two samples show what a batch of many would, and
    one what is special about it."""
    count = min(batch, 2)
    try:
        scores = model.train()(torch.zeros(count, *data.input_shape, device=process.device))
    except Exception as error:
        raise PccError(
            f"the network cannot be trained with {batch} samples at once in each process: {type(error).__name__}: "
            f"{error}"
        ) from error
    check_scores(scores, f"{count} inputs in training")


def _dry_run(model: nn.Module, data: Data, stage: Stage, seed: int, process: Processes) -> int:
    method = stage.make(model, data=data, seed=seed)
    for layer in method.layers:
        rate, weights = getattr(layer.structure, "rate", 1), layer.weight.numel()
        if rate > weights:
            raise PccError(
                f"layer {layer.name}: a rate of {rate:g} leaves less than one of its {weights} weights; choose a lower "
                "one, or leave it dense"
            )
        layer.project(layer.weight)
    if method.epochs:
        if not method.parameters():
            raise PccError("every parameter is frozen, so that there is nothing to train")
        data.batches(0, stage.train.batch, seed=seed, rank=process.rank, ranks=process.ranks)
    return method.epochs


def _dense_accuracy(rows: tuple[dict[str, Any], ...]) -> float:
    compressing = next(
        (place for place, row in enumerate(rows) if row["stage"] not in (BEFORE, "train", "train, done")), len(rows)
    )
    came_pruned = compressing == len(rows) and rows[0]["sparsity"] >= PRUNED
    return rows[0 if came_pruned else compressing - 1]["accuracy"]
