"""Distillation without labels, for a given time: a pruned network learns its dense self's outputs on samples (Hinton et
al., "Distilling the Knowledge in a Neural Network", 2015)."""

from collections.abc import Callable
from time import perf_counter

import torch
from torch import nn
from torch.nn import functional

from pcc.training.methods.train import Train
from pcc.training.recipe import Distillation, Training
from pcc.training.steps import learning_rate, loss_of, make_optimizer

SETTINGS = Training(batch=32, lr=1e-3, weight_decay=0.0, clip=1.0, distill=Distillation(weight=1.0, temperature=2.0))
"""``weight`` 1: nothing but the teacher's opinion counts."""


def distill(
    student: nn.Module,
    teacher: nn.Module,
    samples: torch.Tensor,
    seconds: float,
    watch: Callable[[str, float], None] = lambda what, done: None,
    seed: int = 0,
) -> int:
    """Trains ``student`` in place for ``seconds``, and gives the number of steps. Zeros of its weights stay zeros;
    statistics of batch norms stay as they are.

    ``samples`` are inputs, (N, C, H, W), every second of which is mirrored at random. Class scores, (N, K), are
    compared as distributions; other outputs, of which only one is allowed, by their squared error over the teacher's
    squares.
    """
    student.eval()
    method = Train(student, {}, epochs=1)
    optimizer = make_optimizer(method, SETTINGS)
    random = torch.Generator().manual_seed(seed)
    began, steps = perf_counter(), 0
    while (done := (perf_counter() - began) / seconds) < 1:
        for indices in torch.randperm(len(samples), generator=random).split(SETTINGS.batch):
            done = min(1.0, (perf_counter() - began) / seconds)
            if done == 1:
                break
            x = samples[indices]
            x = torch.where(torch.rand(len(x), 1, 1, 1, generator=random) < 0.5, x.flip(3), x)
            with torch.no_grad():
                opinion = teacher(x)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(SETTINGS, done)
            optimizer.zero_grad()
            loss = method.backward(lambda x=x, opinion=opinion: _loss(student(x), opinion))
            nn.utils.clip_grad_norm_(method.parameters(), SETTINGS.clip or 1.0)
            optimizer.step()
            method.after_step()
            steps += 1
            watch(f"distilling, step {steps}, loss {float(loss):.4f}", done)
    return steps


def _loss(found: torch.Tensor, opinion: torch.Tensor) -> torch.Tensor:
    if opinion.dim() == 2:
        return loss_of(SETTINGS, found, opinion.argmax(dim=1), opinion)
    return functional.mse_loss(found, opinion) / opinion.square().mean()
