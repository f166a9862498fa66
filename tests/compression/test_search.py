"""The search takes the plan whose fitted network is nearest; options with channels are those of bottlenecks."""

import pytest
import torch
from torch import nn

from pcc.compression import search as searching
from pcc.compression.channels import MULTIPLE, with_channels
from pcc.compression.options import Database, LayerOptions, Option, Plan
from pcc.compression.recipe import structure_of
from pcc.compression.search import below, of_nearest, search
from pcc.compression.wish import WishOutOfReach
from pcc.frontend.torch_module import import_module
from pcc.sparsity.kernels import Kernels
from pcc.training.layers import Structures
from tests.nets import Residual, settle
from tests.passes.prunable import run


def option(error: float) -> Option:
    return Option(structure={"kernels": {"rate": 2.0}}, error=error, cost=1.0, family="f", macs=1, bytes=1)


def photos(count: int) -> torch.Tensor:
    noise = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, size=13, mode="bilinear")


@pytest.mark.parametrize("count", [80, 32])
def test_the_nearest_plan_is_found(count: int) -> None:
    dense = Option(cost=2.0, family="f", macs=2, bytes=2)
    database: Database = {
        "first.0": LayerOptions(name="first.0", options=(dense, option(0.12))),
        "second.1": LayerOptions(name="second.1", options=(dense, option(0.5))),
    }

    def plan(some: Database) -> Plan:
        """Of what errs most: of all options something drastic, of few nothing."""
        if not any(layer.options[1:] for layer in some.values()):
            raise WishOutOfReach("nothing is left")
        return {name: layer.options[-1] for name, layer in some.items()}

    rates = {0.12: 1.5, 0.5: 16.0}

    def structures(found: Plan) -> Structures:
        return {name: Kernels(None, rates[each.error]) for name, each in found.items() if each.structure}

    seen: list[str] = []
    trials = search(settle(Residual()), photos(count), 20, plan, database, structures, seen.append)
    assert [trial.bound for trial in trials] == [0.2, 1.0]
    assert trials[0].distance < trials[1].distance
    assert len(seen) == 2
    assert of_nearest(trials, database) == below(database, 0.2)
    assert len(below(database, 0.2)["second.1"].options) == 1


def test_there_may_be_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "reconstruct", None)  # fails where it is called
    (trial,) = search(settle(Residual()), photos(20), 20, lambda some: {}, {}, lambda found: {}, lambda what: None)
    assert trial.bound == 1


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
