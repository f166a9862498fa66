"""Options with fewer channels are those of bottlenecks."""

import torch
from torch import nn

from pcc.compression.channels import MULTIPLE, with_channels
from pcc.compression.options import LayerOptions, Option
from pcc.compression.recipe import structure_of
from pcc.frontend.torch_module import import_module
from tests.passes.prunable import run


def test_options_with_fewer_channels() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=64), nn.ReLU(), nn.Conv2d(64, 8, 1), nn.ReLU()
    ).eval()
    weight = module.get_parameter("4.weight").detach().numpy()
    dense = Option(cost=64.0, family="f", macs=640, bytes=64)
    database = {name: LayerOptions(name=name, options=(dense,)) for name in ("0", "2", "4")}
    graph = run(import_module(module, (torch.zeros(1, 3, 9, 9),)), "decompose,canonicalize")
    found = with_channels(database, graph, {"0", "4"})
    assert [found["0"], found["2"]] == [database["0"], database["2"]]
    assert [each.channels for each in found["4"].options] == [1.0, 0.75, 0.5, 0.25]
    for each in found["4"].options[1:]:
        assert each.feeders == ("0", "2")
        assert (each.cost, each.macs, each.bytes) == (64 * each.channels, 640 * each.channels, 64 * each.channels)
        kept = structure_of(each.structure).project(weight)
        assert (kept != 0).any(axis=(0, 2, 3)).sum() == 64 * each.channels
        assert 64 * each.channels % MULTIPLE == 0
    assert with_channels(database, graph, {"0"}) == database
