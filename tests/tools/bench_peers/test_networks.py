"""Networks of the table, and layers by description."""

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from tools.bench_peers.networks import (
    GROUPS,
    NETWORKS,
    LayerMacs,
    Network,
    dense,
    layer_macs,
    network_named,
    networks_named,
    prune,
)


def test_pruning_keeps_norms_and_spares_depthwise() -> None:
    torch.manual_seed(0)
    three, pointwise, depthwise = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, groups=16)
    before = [float(layer.weight.detach().norm()) for layer in (three, pointwise)]
    prune([three, pointwise, depthwise], {3: 4.0, 1: 2.0})
    assert int(three.weight.count_nonzero()) == 16 * 16 * 4 // 4
    assert int(pointwise.weight.count_nonzero()) == 16 * 16 // 2
    assert depthwise.weight.count_nonzero() == depthwise.weight.numel()
    assert [float(layer.weight.detach().norm()) for layer in (three, pointwise)] == pytest.approx(before)


def test_linear_layers_are_pruned_by_their_own_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tools.bench_peers.networks.create",
        lambda *_, **__: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(20, 10), nn.Linear(10, 4)).eval(),
    )
    module = Network("small", "vgg16", "", linear_rates=(4.0, 2.0)).module()
    assert [int(part.weight.count_nonzero()) for part in module.modules() if isinstance(part, nn.Linear)] == [50, 20]


@pytest.mark.parametrize(
    ("name", "shape", "megamacs"),
    [
        ("shuffle-detector", (1, 112, 2100), 349),
        ("face-embedding", (1, 128), 221),
        ("anti-spoofing", (1, 3), 41),
        ("landmarks", (1, 196), 273),
        ("face-detector", (1, 6400, 6), 338),
    ],
)
def test_light_networks(name: str, shape: tuple[int, ...], megamacs: int) -> None:
    """Random weights keep the size of what passes through."""
    network = network_named(name)
    module = network.module()
    y = module(torch.randn(network.input_shape, generator=torch.Generator().manual_seed(0)))
    assert tuple(y.shape) == shape
    assert 0.1 < y.std() < 10
    assert round(sum(layer.dense for layer in layer_macs(module, network.input_shape).values()) / 1e6) == megamacs


@pytest.mark.parametrize("name", ["anti-spoofing", "face-detector"])
def test_half_of_a_light_network(name: str) -> None:
    """By rates and shared patterns."""
    network = network_named(f"{name}-2x")
    macs = layer_macs(network.module(), network.input_shape).values()
    assert 1.95 < sum(layer.dense for layer in macs) / sum(layer.kept for layer in macs) < 2.05
    assert dense(network).name == name


def test_a_layer_is_a_network() -> None:
    network = network_named("conv:8,16,3,7,2@2")
    module = network.module()
    assert module(torch.zeros(network.input_shape)).shape == (1, 16, 4, 4)
    (layer,) = layer_macs(module, network.input_shape).values()
    assert layer == LayerMacs(kind="3x3", dense=16 * 8 * 9 * 16, kept=16 * 8 * 4 // 2 * 16)
    assert dense(network).name == "conv:8,16,3,7,2"
    with pytest.raises(PccError, match="no network 'conv:8'"):
        network_named("conv:8")


def test_names_stand_for_several() -> None:
    found = [network.name for network in networks_named(["resnet50-3x3", "conv:64,64,3,56@3.6", "resnet50"])]
    assert found == [
        "conv:64,64,3,56@3.6",
        "conv:128,128,3,28@3.6",
        "conv:256,256,3,14@3.6",
        "conv:512,512,3,7@3.6",
        "resnet50",
    ]
    for group in GROUPS:
        assert networks_named([group])


def test_pruned_networks_come_from_dense_ones() -> None:
    for network in NETWORKS.values():
        assert not dense(network).pruned
        assert dense(network).input_shape == network.input_shape
