"""How activations of networks in training lie in memory."""

from itertools import chain

import torch
from torch import nn

LEAST_CHANNELS = 16
"""Of oneDNN's blocks with AVX-512; 8 with AVX2."""


def memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last, in which convolutions are fastest, but for networks that oneDNN would write beyond its memory for:
    the gradient of a 1x1 convolution that has a stride and fewer channels than a block
    (https://github.com/uxlfoundation/oneDNN/issues/6035)."""
    wrong = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels // layer.groups < LEAST_CHANNELS
        for layer in model.modules()
    )
    return torch.contiguous_format if wrong else torch.channels_last


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Makes the model's parameters and buffers of four dimensions, which are the weights of convolutions, lie so."""
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
