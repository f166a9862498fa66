"""The steps of a PyTorch network: each function draws its operands and arguments, and adds itself."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tests.random_graphs.builder import Builder, Network, Unfit
from tests.random_graphs.torch_steps import layers, moves, numbers

Step = Callable[[Builder], Any]

STEPS: Sequence[Step] = [*layers.STEPS, *moves.STEPS, *numbers.STEPS]
"""What is drawn from; what stands here twice is drawn twice as often."""


def draw(b: Builder, steps: Sequence[Step] = STEPS) -> Network:
    """A network of one or two inputs and up to ten steps."""
    for _ in range(b.random.choice([1, 1, 2])):
        b.input(b.size(3), b.size(8), b.size(9), b.size(9)) if b.random.random() < 0.8 else b.input(
            *(b.size(7) for _ in range(b.size(3)))
        )
    wanted, tried = b.size(10), 0
    while len(b.steps) < wanted and tried < 200:
        tried += 1
        step = b.random.choice(steps)
        try:
            step(b)
            b.names.append(step.__name__)
        except Unfit:
            continue
    return b.network() if b.steps else draw(b, [lambda b: b.add(torch.neg, 0)])


_CHANNELS: Sequence[Step] = [
    *[layers.conv2d] * 6,
    *[layers.conv_transpose, layers.linear, layers.norm, layers.pool2d, layers.resize] * 2,
    *[moves.view, moves.part, moves.join, moves.pad, numbers.unary, numbers.binary, numbers.residual, numbers.gate] * 2,
]


def draw_channels(b: Builder) -> Network:
    """A network of layers and of what brings their channels together or moves them about; what nobody reads is read by
    a last convolution."""
    draw(b, _CHANNELS)
    read = {operand for _, operands in b.steps for operand in operands}
    for place in range(len(b.inputs), len(b.values)):
        if place not in read and b.values[place].dim() == 4 and b.values[place].is_floating_point():
            padding = b.random.randint(0, 1)
            b.add(nn.Conv2d(b.values[place].shape[1], b.size(3), 1 + 2 * padding, padding=padding), place)
    return b.network()
