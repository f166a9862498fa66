"""What goes into each layer of a network and of its teacher, compared: that says far more than scores (Romero et al.,
"FitNets: Hints for Thin Deep Nets", ICLR 2015)."""

from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from pcc.training.layers import prunable

MOST_VALUES = 1 << 20
"""Of a layer's input in a batch, that are compared: more say little and take most of a step's time."""


LEAST_WANTED = 1e-3
"""Of the squares that are found: less would make the error of one layer all that counts."""


class Hints(ExitStack):
    """Sees what goes into the layers of a student and of its teacher, until it is closed.

    Both have the same layers. Channels that the student's layer has no weights for do not count, and of large inputs
    only as many samples of the batch as have `MOST_VALUES`.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        taught = prunable(teacher)
        layers = {name: layer for name, layer in prunable(student).items() if name in taught}  # a method has others
        self._read = {name: _channels_read(layer) for name, layer in layers.items()}
        self._found, self._wanted = self._inputs(layers), self._inputs(taught)

    def __enter__(self) -> Self:
        return self

    def _inputs(self, layers: dict[str, nn.Conv2d | nn.Linear]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def see(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs:  # else the caller names it, in both networks
                samples = max(1, MOST_VALUES * len(inputs[0]) // max(1, inputs[0].numel()))
                found[name] = _FirstSamples.apply(inputs[0], samples)  # type: ignore[no-untyped-call]

        for name, layer in layers.items():
            self.callback(layer.register_forward_pre_hook(partial(see, name)).remove)
        return found

    def loss(self) -> Tensor:
        """Of the last runs, of the same batch: `error` summed over the layers. The network's input teaches nothing."""
        learned = {name: found for name, found in self._found.items() if found.requires_grad}
        errors = [error(found, self._wanted[name].detach(), self._read[name]) for name, found in learned.items()]
        return torch.stack(errors).sum() if errors else torch.zeros(())


class _FirstSamples(torch.autograd.Function):
    """The first samples of a batch. As a plain slice, its gradient would lie otherwise than the batch in memory: to add
    the two took a sixth of a training step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        ctx.like = torch.empty_like(x, device="meta")  # of an expanded input a gradient has memory of its own
        return x[:count].detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (first,) = gradients
        whole = torch.empty_like(ctx.like, dtype=first.dtype, device=first.device)
        whole[: len(first)], whole[len(first) :] = first, 0
        return whole, None


def error(found: Tensor, wanted: Tensor, channels: Tensor | None = None) -> Tensor:
    """Squared error over the squares of what is wanted, of some channels; where next to nothing is wanted, over a share
    of what is found."""
    if channels is not None:
        found, wanted = found * channels.to(found), wanted * channels.to(wanted)
    found, wanted = found.float(), wanted.float()
    size = torch.maximum(wanted.square().mean(), LEAST_WANTED * found.detach().square().mean())
    return functional.mse_loss(found, wanted) / size.clamp_min(torch.finfo(wanted.dtype).tiny)


def _channels_read(layer: nn.Conv2d | nn.Linear) -> Tensor | None:
    """1 for input channels that a convolution has weights for and 0 for others, (I, 1, 1); None where it reads all."""
    if isinstance(layer, nn.Linear) or layer.groups > 1:
        return None
    read = (layer.weight.detach() != 0).transpose(0, 1).flatten(1).any(dim=1)
    return None if bool(read.all()) else read.to(layer.weight.dtype)[:, None, None]
