"""Counts by hand."""

import torch
from torch import nn

from pcc.frontend.torch_module import import_module
from pcc.ir.counts import Counts, count, count_all
from pcc.passes.canonicalize import Canonicalize
from tests.passes.find import call


def test_convolution_counts_weights_and_positions() -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    conv.weight.data[:3] = 0
    nn.init.ones_(conv.bias)  # type: ignore[arg-type]
    graph_module = import_module(conv, (torch.randn(2, 4, 5, 7),))
    expected = Counts(
        parameters=6 * 2 * 9 + 6,
        nonzeros=3 * 2 * 9 + 6,
        macs=2 * 3 * 4 * 6 * 2 * 9,
        kept_macs=2 * 3 * 4 * 3 * 2 * 9,
        weight_bytes=(6 * 2 * 9 + 6) * 4,
        output_bytes=2 * 6 * 3 * 4 * 4,
    )
    assert count_all(graph_module) == expected
    Canonicalize()(graph_module)
    assert count(call(graph_module, "pcc.conv2d")) == expected


def test_shared_weights_count_once_but_work_counts_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.fc(x))

    graph_module = import_module(Twice(), (torch.randn(3, 4),))
    Canonicalize()(graph_module)
    total = count_all(graph_module)
    assert (total.parameters, total.macs, total.weight_bytes) == (16, 96, 64)
