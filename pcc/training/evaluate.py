"""Accuracy and sparsity of a model, and how often its layers compute."""

import math
from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.data import Data
from pcc.training.processes import Processes

TEST_BATCH = 500
BATCH_VALUES = 1 << 23
"""Input values that run through a network at a time: 55 photos of 224 x 224."""


@torch.no_grad()
def accuracy(model: nn.Module, data: Data, process: Processes, *, bf16: bool = False) -> float:
    """Share of the test set that is classified right, 0..1, in eval mode; each process takes its part."""
    training = model.training
    model.eval()
    right = count = 0
    batch = max(1, min(TEST_BATCH, BATCH_VALUES // math.prod(data.input_shape)))
    for x, y in data.test_batches(batch, rank=process.rank, ranks=process.ranks):
        with torch.autocast(process.device.type, torch.bfloat16, enabled=bf16):
            scores = model(x.to(process.device, memory_format=torch.channels_last))
        right += int((scores.argmax(dim=1) == y.to(process.device)).sum())
        count += len(y)
    model.train(training)
    all_right, all_count = process.total(right, count)
    return all_right / all_count


def check_scores(scores: object, samples: str) -> None:
    """`PccError` if what a network gave for ``samples`` is no row of class scores for each."""
    if isinstance(scores, torch.Tensor) and scores.dim() == 2:
        return
    what = "x".join(map(str, scores.shape)) if isinstance(scores, torch.Tensor) else type(scores).__name__
    raise PccError(f"the network gives {what} for {samples}: training needs a row of class scores for each, NxK")


def sparsity(layers: Iterable[nn.Conv2d | nn.Linear]) -> float:
    """Share of the weights of layers that are zero, 0..1."""
    weights = [layer.weight for layer in layers]
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)


@torch.no_grad()
def positions(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """How often one input (C, H, W) uses each weight of a convolution or linear layer, over all calls, by module path:
    MACs are this times the weights.

    Layers that the input does not reach are left out.
    """
    found: dict[str, int] = {}
    names: dict[nn.Module, str] = {
        module: name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        channels = output.shape[1] if isinstance(module, nn.Conv2d) else output.shape[-1]
        found[names[module]] = found.get(names[module], 0) + output.numel() // channels

    training = model.training
    model.eval()
    with ExitStack() as hooks:
        for module in names:
            hooks.callback(module.register_forward_hook(count).remove)
        model(torch.zeros(1, *input_shape, device=next(model.parameters()).device))
    model.train(training)
    return found
