"""Channels come last, but for layers that oneDNN would write beyond its memory for."""

import copy

import pytest
import torch
from torch import nn

from pcc.training.memory_format import lay_out, memory_format


@pytest.mark.parametrize(
    ("layer", "channels_last"),
    [
        (nn.Conv2d(16, 4, 1, 2), True),
        (nn.Conv2d(8, 4, 1), True),
        (nn.Conv2d(8, 4, 3, 2), True),
        (nn.Conv2d(15, 4, 1, (1, 2)), False),
        (nn.Conv2d(64, 64, 1, 2, groups=8), False),
    ],
)
def test_memory_format(layer: nn.Conv2d, channels_last: bool) -> None:
    model = nn.Sequential(nn.ReLU(), layer)
    assert memory_format(model) == (torch.channels_last if channels_last else torch.contiguous_format)
    model.to(memory_format=memory_format(model))  # type: ignore[call-overload]
    x = torch.rand(1, layer.in_channels, 128, 128).to(memory_format=memory_format(model))
    model(x).sum().backward()
    reference = copy.deepcopy(layer).double()  # oneDNN has no fp64
    reference.zero_grad()
    reference(x.double()).sum().backward()
    found, expected = layer.weight.grad, reference.weight.grad
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_only_weights_of_convolutions_are_laid_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.register_buffer("grid", torch.zeros(1, 3, 2, 2, 2))  # five dimensions, as anchors have
    lay_out(model, torch.channels_last)
    assert model.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    lay_out(model, torch.contiguous_format)
    assert model.get_parameter("0.weight").is_contiguous()
