"""Seeded random weights for models that have no trained ones: for speed and correctness, never for accuracy."""

from collections.abc import Sequence

import torch
from torch import nn

SEED = 2026


def initialise(module: nn.Module, input_shape: Sequence[int], seed: int = SEED) -> None:
    """Fills a module in eval mode with random numbers, the same on every run.

    Biases, slopes and batch norms are random too, so that a compiler which loses one is found out. One random input of
    ``input_shape`` sets the batch norms' statistics as training would, so that activations keep their size through deep
    residual networks.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, std=(2 / part.weight[0].numel()) ** 0.5, generator=generator)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1, generator=generator)
        elif isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0.0, 0.5, generator=generator)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, std=0.1, generator=generator)
    if norms:
        _set_statistics(module, norms, torch.randn(tuple(input_shape), generator=generator))


def _set_statistics(module: nn.Module, norms: Sequence[nn.BatchNorm2d], sample: torch.Tensor) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module(sample)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
