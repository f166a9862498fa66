"""The training steps of one epoch, of any stage: batches, loss, gradients, optimizer."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn

from pcc.errors import PccError
from pcc.progress import Watch
from pcc.training.data import Data
from pcc.training.hints import Hints
from pcc.training.memory_format import memory_format
from pcc.training.method import Method, average
from pcc.training.processes import Processes
from pcc.training.recipe import Stage, Training

EPOCHS = 1000
"""Data epochs set aside for a stage, so that stages see different orders."""


def make_optimizer(method: Method, settings: Training) -> torch.optim.Optimizer:
    """Weight decay is for weights, not for biases and batch norms."""
    parameters = method.parameters()
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim > 1],
            "weight_decay": settings.weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    adam = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, lr=settings.lr, betas=(settings.momentum, 0.999))


def learning_rate(settings: Training, done: float) -> float:
    """At a part of the stage, 0..1."""
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "one-cycle":
        return settings.lr * min(done / 0.2, (1 - done) / 0.8)
    return settings.lr


def loss_of(
    settings: Training, scores: torch.Tensor, labels: torch.Tensor, opinion: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of scores (N, K), and with ``opinion``, the teacher's scores, how far the student is from them
    (Hinton et al., 2015)."""
    loss = F.cross_entropy(scores.float(), labels, label_smoothing=settings.label_smoothing)
    if opinion is None or settings.distill is None:
        return loss
    temperature, weight = settings.distill.temperature, settings.distill.weight
    student, teacher = (F.log_softmax(logits.float() / temperature, dim=1) for logits in (scores, opinion))
    return (1 - weight) * loss + weight * temperature**2 * F.kl_div(
        student, teacher, reduction="batchmean", log_target=True
    )


def _finite(model: nn.Module) -> bool:
    """Whether weights and statistics are finite, and other buffers numbers: masks may be infinite."""
    statistics = [value for name, value in model.named_buffers() if name.rpartition(".")[2].startswith("running_")]
    return all(bool(value.isfinite().all()) for value in (*model.parameters(), *statistics)) and not any(
        bool(value.isnan().any()) for value in model.buffers()
    )


@dataclass
class Steps:
    """What the epochs of one stage are made of."""

    number: int
    """Of the stage, from 0."""
    stage: Stage
    seed: int
    model: nn.Module
    module: nn.Module
    """The model, or what wraps it where several processes train it."""
    method: Method
    optimizer: torch.optim.Optimizer
    data: Data
    process: Processes
    teacher: nn.Module | None
    watch: Watch
    """Is told after each step: ``admm, epoch 3 of 12, loss 0.123``, and the part of the epoch that is over."""

    def epoch(self) -> float:
        """Trains one epoch and gives its mean loss, over all processes. Raises `PccError` where the loss or the weights
        are no longer finite."""
        settings, steps = self.stage.train, self.data.steps(self.stage.train.batch)
        what = f"{self.stage.method}, epoch {self.method.epoch + 1} of {self.method.epochs}"
        batches = self.data.batches(
            EPOCHS * self.number + self.method.epoch,
            settings.batch,
            seed=self.seed,
            rank=self.process.rank,
            ranks=self.process.ranks,
        )
        self.module.train()
        total = 0.0
        with self._hints(settings) as hints:
            for step, (x, y) in enumerate(batches):
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(settings, (self.method.epoch + step / steps) / self.method.epochs)
                loss = self._gradients(settings, x, y, hints)
                if not math.isfinite(loss):
                    raise self._diverged(f"the loss is {loss}", what, f"step {step + 1}")
                if settings.clip:
                    nn.utils.clip_grad_norm_(self.method.parameters(), settings.clip)
                self.optimizer.step()
                self.method.after_step()
                total += loss
                self.watch(f"{what}, loss {loss:.3f}", (step + 1) / steps)
        self._average_statistics()
        if not _finite(self.model):
            raise self._diverged("weights are not finite", what, f"step {steps}")
        return total / steps

    @cached_property
    def _layout(self) -> torch.memory_format:
        return memory_format(self.model)

    def _hints(self, settings: Training) -> AbstractContextManager[Hints | None]:
        if settings.distill is None or self.teacher is None or not settings.distill.hints:
            return nullcontext()
        return Hints(self.model, self.teacher)

    def _gradients(self, settings: Training, x: torch.Tensor, y: torch.Tensor, hints: Hints | None) -> float:
        """Fills the gradients, averaged over the processes, and gives the loss of the whole batch."""
        x, y = x.to(self.process.device, memory_format=self._layout), y.to(self.process.device)
        self.optimizer.zero_grad()
        self.method.take(x, y)
        loss = float(self.method.backward(lambda: self._loss(settings, x, y, hints)))
        if self.process.ranks > 1:
            wrapped = {id(parameter) for parameter in self.model.parameters()}
            for learned in self.method.parameters():
                if id(learned) not in wrapped and learned.grad is not None:
                    average(learned.grad)
        (all_losses,) = self.process.total(loss)
        return all_losses / self.process.ranks

    def _loss(self, settings: Training, x: torch.Tensor, y: torch.Tensor, hints: Hints | None) -> torch.Tensor:
        with torch.autocast(self.process.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            scores = self.module(x)
            opinion = None
            if settings.distill is not None and self.teacher is not None:
                with torch.no_grad():
                    opinion = self.teacher(x)
        loss = loss_of(settings, scores, y, opinion)
        if hints is not None and settings.distill is not None:
            loss = loss + settings.distill.hints * hints.loss()
        return loss

    def _average_statistics(self) -> None:
        """Of batch norms: each process has seen its share of the batches. They are linear in the batches' statistics,
        so their mean is that of all."""
        for value in self.model.buffers():
            if value.is_floating_point():
                average(value)

    def _diverged(self, how: str, what: str, step: str) -> PccError:
        return PccError(
            f"{how} in stage {self.number + 1} ({what}, {step}): try a lower lr; what was saved after the epoch before "
            "is kept"
        )
