"""The exact passes one after another on random networks: shared values, broadcasts, several outputs, all in one
graph."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcc.passes.fold_batchnorm import FoldBatchnorm
from pcc.passes.fold_constants import FoldConstants
from pcc.passes.fuse_epilogues import FuseEpilogues
from tests.passes.exact import apply_exactly, canonical, operators, randomise

CONSTANT_SHAPES = ((1, 4, 1, 1), (4, 1, 1), (1, 1, 1, 1), (1, 4, 5, 5), (1, 1, 5, 1))
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Sigmoid)


class RandomNetwork(nn.Module):
    """A chain of random steps, each of one recent value and one of any age; (N, 4, 5, 5) throughout."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        self.layers, self.steps = nn.ModuleList(), []
        for number in range(1, choose.randint(8, 16)):
            kind = choose.choice(
                [
                    "conv",
                    "conv",
                    "norm",
                    "norm",
                    "activation",
                    "add",
                    "add",
                    "sub",
                    "product",
                    "constant",
                    "gate",
                    "pool",
                ]
            )
            self.steps.append(
                (
                    kind,
                    choose.randrange(max(0, number - 3), number),
                    choose.randrange(number),
                    torch.zeros(choose.choice(CONSTANT_SHAPES)),
                )
            )
            conv = nn.Conv2d(
                4, 4, choose.choice([1, 3]), padding="same", groups=choose.choice([1, 2, 4]), bias=choose.random() < 0.5
            )
            made_layers = {
                "conv": conv,
                "norm": nn.BatchNorm2d(4, affine=choose.random() < 0.8),
                "activation": choose.choice(ACTIVATIONS)(),
            }
            self.layers.append(made_layers.get(kind, nn.Identity()))
            earlier = [layer for layer in self.layers[:-1] if isinstance(layer, nn.Conv2d)]
            if kind == "conv" and earlier and choose.random() < 0.3:
                self.layers[-1] = choose.choice(earlier)
        self.constants = nn.ParameterList(step[3] for step in self.steps)
        self.extra = choose.randint(1, len(self.steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = [x]
        for (kind, first, second, _), layer, constant in zip(self.steps, self.layers, self.constants, strict=True):
            a, b = values[first], values[second]
            match kind:
                case "add":
                    a = a + b
                case "sub":
                    a = a - b - 0.5
                case "product":
                    a = a * torch.tanh(b)
                case "constant":
                    a = constant + a
                case "gate":
                    a = a * torch.sigmoid(b.mean((2, 3), keepdim=True))
                case "pool":
                    a = F.max_pool2d(a, 3, 1, 1)
                case _:
                    a = layer(a)
            values.append(a)
        return values[-1] * 1.5, values[self.extra]


@pytest.mark.parametrize("seed", range(8))
def test_random_network(seed: int) -> None:
    graph_module = canonical(randomise(RandomNetwork(seed), seed), torch.zeros(2, 4, 5, 5))
    calls = operators(graph_module)
    graph_module = apply_exactly(graph_module, FoldConstants(), FoldBatchnorm(), FuseEpilogues(), rtol=2e-5)
    after = operators(graph_module)
    assert "batch_norm" not in after
    assert after["conv2d"] == calls["conv2d"]
    assert after["elementwise"] <= calls["elementwise"] + calls["batch_norm"]
