"""Counts by hand."""

import torch
from torch import nn

from pcc.codegen.select_kernels import SelectKernels
from pcc.frontend.torch_module import import_module
from pcc.ir.counts import Counts, count, count_all
from pcc.ir.ops import UNPACK
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.fold_constants import FoldConstants
from pcc.passes.prune_connectivity import PruneConnectivity
from pcc.passes.prune_pattern import PrunePattern
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
        input_bytes=2 * 4 * 5 * 7 * 4,
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


def test_a_shared_bias_counts_once_and_the_weights_that_come_with_it_all() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)]
    for layer in layers:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    graph_module = import_module(nn.Sequential(*layers).eval(), (torch.randn(1, 3, 8, 8),))
    for step in (Canonicalize(), FoldConstants()):
        step(graph_module)
    total = count_all(graph_module)
    assert total.parameters == 8 * 3 * 9 + 8 * 8 * 9 + 8 * 8 + 8
    assert total.nonzeros == total.parameters - 8
    assert total.weight_bytes == 4 * total.parameters


def test_a_packed_weight_counts_as_the_dense_one() -> None:
    graph_module = import_module(nn.Conv2d(16, 16, 3, padding=1).eval(), (torch.randn(1, 16, 32, 32),))
    for step in (Canonicalize(), PrunePattern(spare_first=False), PruneConnectivity(rate=4, spare_first=False)):
        step(graph_module)
    before = count_all(graph_module)
    SelectKernels("avx2")(graph_module)
    assert graph_module.graph.find_nodes(op="call_function", target=UNPACK)
    after = count_all(graph_module)
    assert (after.parameters, after.nonzeros, after.kept_macs) == (before.parameters, before.nonzeros, before.kept_macs)
    assert after.weight_bytes < before.weight_bytes / 2


def test_layers_without_outputs_cost_nothing() -> None:
    graph_module = import_module(nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 3)).eval(), (torch.randn(1, 4),))
    Canonicalize()(graph_module)
    assert count_all(graph_module).macs == 0
