"""What options cost: those that gain too little are left out, and a layer that runs twice costs twice."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pcc.codegen.select_kernels import OpenLayer
from pcc.compression.options import LayerOptions
from pcc.compression.prices import LEAST_GAIN, priced_layers
from pcc.frontend.torch_module import import_module
from pcc.progress import quiet
from pcc.sparsity.formats import DENSE
from pcc.sparsity.kernels import Kernels
from tests.passes.prunable import FRONT, graph_of, run

RATES = (2, 4)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x).relu())


def priced(module: nn.Module, gain: float, *, smaller: bool) -> LayerOptions:
    """The options of the only layer, if half of its connections make it so many times as fast, and a quarter twice."""
    torch.manual_seed(0)
    graph, _ = graph_of(module, 1, 8, 12, 12)

    def choose(layer: OpenLayer) -> tuple[str, float]:
        kept = np.count_nonzero(layer.weights[DENSE]) / layer.weights[DENSE].size
        return "conv-dense", 100.0 / (1 if kept == 1 else gain if kept == 0.5 else 2)

    def candidates(name: str, weight: np.ndarray, groups: int) -> list[Kernels]:
        return [Kernels(None, rate) for rate in RATES]

    (found,) = priced_layers(graph, choose, candidates, smaller, quiet).values()
    return found


def test_options_that_gain_too_little_are_left_out() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    macs = 8 * 8 * 9 * 144
    for gain, smaller, kept in ((LEAST_GAIN + 0.001, False, (1, 2, 4)), (LEAST_GAIN - 0.001, False, (1, 4))):
        found = priced(conv, gain, smaller=smaller).options
        assert [option.macs for option in found] == [macs // rate for rate in kept]
    found = priced(conv, 0.9, smaller=True).options
    assert [option.macs for option in found] == [macs, macs // 2, macs // 4]
    assert [str(option) for option in found[:1]] == ["dense"]


def test_a_layer_that_runs_twice() -> None:
    found = priced(Twice(), 1.25, smaller=False)
    assert found.name == "conv"
    assert [option.cost for option in found.options] == [200, 160, 100]
    assert [option.macs for option in found.options] == [2 * 8 * 8 * 9 * 144 // rate for rate in (1, *RATES)]
    assert {option.bytes for option in found.options} == {4 * 8 * 8 * 9}


class Mixed(nn.Module):
    """Three layers alike: a module, a convolution that is none, and a module that has lost half of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.last.weight.data[::2] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.conv2d(self.first(x), self.weight, padding=1))


def test_layers_alike_that_may_not_take_the_same() -> None:
    graph = run(import_module(Mixed(), (torch.zeros(1, 8, 12, 12),)), FRONT)

    def candidates(name: str, weight: np.ndarray, groups: int) -> list[Kernels]:
        return [Kernels(None, 4)] if name in ("first", "last") else []

    found = priced_layers(graph, lambda layer: ("conv-dense", 1.0), candidates, True, quiet)
    options = {name: [option.macs for option in layer.options] for name, layer in found.items()}
    macs = 8 * 8 * 9 * 144
    assert (options.pop("first"), options.pop("last")) == ([macs, macs // 4], [macs // 2, macs // 4])
    assert list(options.values()) == [[macs]]
