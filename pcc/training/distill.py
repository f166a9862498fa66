"""Distillation without labels, for a given time: a pruned network learns its dense self's outputs on samples (Hinton et
al., "Distilling the Knowledge in a Neural Network", 2015).

It learns what goes into each layer, too, and it sees mixtures of small parts of samples, of which the teacher has an
opinion (Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR 2022): so few samples go
a long way. At first they are smaller, so that there are more steps (Touvron et al., "Fixing the Train-Test Resolution
Discrepancy", NeurIPS 2019).
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from pcc.progress import Watch, quiet
from pcc.training.hints import Hints, error
from pcc.training.memory_format import lay_out, memory_format
from pcc.training.methods.train import Train
from pcc.training.recipe import Distillation, Training
from pcc.training.steps import learning_rate, loss_of
from pcc.training.views import random_mixtures, random_parts

SETTINGS = Training(
    batch=32,
    lr=2e-3,
    schedule="one-cycle",
    clip=1.0,
    distill=Distillation(weight=1.0, temperature=2.0),
)
"""``weight`` 1: nothing but the teacher's opinion counts. The learning rate is a share of each tensor's own size."""
LEAST_SIZE = 1e-3
"""Of a tensor, where that share is concerned: shifts may be zero."""
LEAST_AREA = 0.2
"""Of a sample, that is looked at."""
SMALL_PART = 0.75
"""Of the time, in which samples have..."""
SMALL = 5 / 7
"""...this share of their side, as a multiple of `STRIDE` where that is..."""
STRIDE = 32
"""...the usual one of a network, but..."""
LEAST_SIDE = 96
"""...no less than that."""
OUTPUTS = 0.1
"""What outputs count beside what goes into one layer."""


def distill(
    student: nn.Module,
    teacher: nn.Module,
    samples: Tensor,
    seconds: float,
    watch: Watch = quiet,
    seed: int = 0,
) -> int:
    """Trains ``student`` in place for ``seconds``, frozen parameters too, and gives the number of steps. Zeros of its
    weights stay zeros; statistics of batch norms stay as they are.

    ``samples`` are inputs, (N, C, H, W), of which random parts are taken, every second one mirrored, and mixed. What
    goes into each layer, where the student reads it, and the outputs are compared by their squared error over the
    teacher's squares, and outputs (N, K) as distributions, too. Multiplies in bf16 where that is faster; weights and
    their updates are fp32.
    """
    student.eval().requires_grad_(True)
    method = Train(student, {}, epochs=1)
    optimizer = _optimizer(method)
    random = torch.Generator().manual_seed(seed)
    with _formatted(student, teacher), Hints(student, teacher) as hints:

        def loss_on(x: Tensor, precision: torch.dtype) -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
                with torch.no_grad():
                    opinion = teacher(x)
                found = student(x)
            return OUTPUTS * _loss(found, opinion) + hints.loss()

        precision = _faster(lambda precision: loss_on(samples[: SETTINGS.batch], precision).backward())
        small, layout = small_size(teacher, samples), memory_format(student)
        began, steps = perf_counter(), 0
        while (done := (perf_counter() - began) / seconds) < 1:
            for indices in torch.randperm(len(samples), generator=random).split(SETTINGS.batch):
                done = min(1.0, (perf_counter() - began) / seconds)
                if done == 1:
                    break
                size = small if done < SMALL_PART else samples.shape[2:]
                x = random_mixtures(random_parts(samples[indices], random, LEAST_AREA, size), random)
                x = x.contiguous(memory_format=layout)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(SETTINGS, done) * group["size"]
                optimizer.zero_grad()
                loss = method.backward(lambda x=x: loss_on(x, precision))
                nn.utils.clip_grad_norm_(method.parameters(), SETTINGS.clip or 1.0)
                optimizer.step()
                method.after_step()
                steps += 1
                watch(f"distilling, step {steps}, loss {float(loss):.4f}", done)
    return steps


def small_size(teacher: nn.Module, samples: Tensor) -> tuple[int, ...]:
    """The size (H, W) of small samples: of all, if the network takes no other."""
    sides = samples.shape[2:]
    small = tuple(min(side, max(LEAST_SIDE, round(SMALL * side / STRIDE) * STRIDE)) for side in sides)
    try:
        with torch.no_grad():
            teacher(functional.interpolate(samples[: SETTINGS.batch], small))
    except Exception:  # whatever a network says to a shape that it does not take
        return tuple(sides)
    return small


def _optimizer(method: Train) -> torch.optim.Optimizer:
    """Adam moves every weight by about the learning rate, however small the weights are: so each tensor has its own, by
    its root mean square (Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML
    2018, section 8)."""
    sizes = [parameter.detach()[parameter.detach() != 0].square().mean().sqrt() for parameter in method.parameters()]
    groups = [
        {"params": [parameter], "size": max(LEAST_SIZE, float(size.nan_to_num()))}
        for parameter, size in zip(method.parameters(), sizes, strict=True)
    ]
    return torch.optim.Adam(groups, fused=True)


@torch.no_grad()
def distances(students: Sequence[nn.Module], teacher: nn.Module, batches: Iterable[Tensor]) -> list[float]:
    """How far each student's outputs are from the teacher's on batches of samples that they have not learned on: what
    `distill` makes small, but for the inputs of layers."""
    totals, count = [0.0] * len(students), 0
    for x in batches:
        opinion, count = teacher(x), count + len(x)
        for place, student in enumerate(students):
            totals[place] += len(x) * float(_loss(student.eval()(x), opinion))
    return [total / count for total in totals]


@contextmanager
def _formatted(*models: nn.Module) -> Generator[None]:
    """Inside, weights lie as convolutions in training want them."""
    for model in models:
        lay_out(model, memory_format(model))
    try:
        yield
    finally:
        for model in models:
            lay_out(model, torch.contiguous_format)


def _faster(step: Callable[[torch.dtype], object]) -> torch.dtype:
    """fp32 or bf16, whichever ``step`` is faster in here."""
    seconds: dict[torch.dtype, float] = {}
    for precision in (torch.float32, torch.bfloat16):
        step(precision)  # sets buffers up
        began = perf_counter()
        step(precision)
        seconds[precision] = perf_counter() - began
    return min(seconds, key=lambda precision: seconds[precision])


def _loss(found: object, opinion: object) -> Tensor:
    """How far outputs are from the teacher's, summed: tensors, or whatever networks put them in."""
    pairs = zip(_tensors(found), _tensors(opinion), strict=True)
    return torch.stack([_distance(*pair) for pair in pairs]).sum()


def _tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _distance(found: Tensor, opinion: Tensor) -> Tensor:
    if opinion.dim() == 2:
        return error(found, opinion) + loss_of(SETTINGS, found, opinion.argmax(dim=1), opinion)
    return error(found, opinion)
