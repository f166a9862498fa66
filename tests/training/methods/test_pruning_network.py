"""The pruner learns which filters go; those that go are the ones with closed gates, and their maps are zero."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.models.cifar import ResNet20
from pcc.training.methods.pruning_network import OPEN, PruningNetwork
from pcc.training.recipe import parse_structures
from tests.training.methods.loop import data, net, run, run_interrupted, same

RECIPE = """
train: {batch: 60, lr: 0.05, schedule: cosine}
stages:
  - train: {epochs: 4}
  - pruning-network:
      {epochs: 4, weight: 0.6, beta: 8, train: {optimizer: adam, lr: 0.05, schedule: constant, weight_decay: 0}}
  - train: {epochs: 2}
"""


def test_costs_are_the_multiplications_that_go_with_a_filter() -> None:
    method = PruningNetwork(net(), {}, 1, data=data())
    conv1 = 9 * 64 + 12 * 9 * 16
    conv2 = 8 * 9 * 16 + 16 * 4
    fc1 = 48 + 4
    total = 8 * conv1 + 12 * conv2 + 16 * fc1
    assert method.costs == pytest.approx([conv1 / total, conv2 / total, fc1 / total])


def test_the_target_is_frozen_and_the_pruner_trains() -> None:
    model = net().train()
    keys = set(model.state_dict())
    method = PruningNetwork(model, {}, 2, data=data())
    before = {name: value.clone() for name, value in model.state_dict().items() if name in keys}
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    model(torch.randn(6, 1, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    optimizer.step()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert set(model.state_dict()) > keys
    method.finish()
    assert set(model.state_dict()) == keys
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gates_do_not_hang_on_one_input() -> None:
    """One gate a filter for the whole batch, in training; 0 or 1 in evaluation."""
    model = net().train()
    method = PruningNetwork(model, {}, 1, data=data())
    model(torch.randn(6, 1, 8, 8))
    assert [gate.shape for gate in method.gates] == [(8,), (12,), (16,)]
    assert all(bool(((gate > 0.5) & (gate < 1)).all()) for gate in method.gates)
    model.eval()
    x = torch.randn(6, 1, 8, 8)
    torch.testing.assert_close(model(x), net().eval()(x))
    assert all(bool((gate == 1).all()) for gate in method.gates)


def test_closed_gates_are_filters_that_go() -> None:
    model = net().eval()
    method = PruningNetwork(model, {}, 1, data=data())
    closed = torch.arange(36) % 3 == 0
    method.pruner.mean.copy_(torch.where(closed, -torch.rand(36), torch.rand(36)))
    x = torch.randn(5, 1, 8, 8)
    gated = model(x)
    metrics = method.metrics()
    method.finish()
    torch.testing.assert_close(model(x), gated)
    layers = (model.conv1, closed[:8]), (model.conv2, closed[8:20]), (model.fc1, closed[20:])
    for layer, gone in layers:
        assert torch.equal((layer.weight == 0).flatten(1).all(dim=1), gone)
        assert layer.bias is not None
        assert torch.equal(layer.bias == 0, gone)
    assert not model.bn2.bias[closed[8:20]].any()
    assert not model.bn2.weight[closed[8:20]].any()
    assert not model.conv2.weight[:, closed[:8]].any()
    assert metrics["filters"] == pytest.approx(24 / 36)


def test_a_layer_keeps_its_best_filter() -> None:
    model = net()
    method = PruningNetwork(model, {}, 1, data=data())
    method.pruner.mean.copy_(-1 - torch.rand(36))
    method.pruner.mean[3] = -0.5
    method.finish()
    assert model.conv1.weight.flatten(1).any(dim=1).nonzero().flatten().tolist() == [3]
    assert int(model.fc1.weight.any(dim=1).sum()) == 1


def test_shortcuts_keep_their_filters() -> None:
    images = data()
    images.input_shape = 3, 8, 8
    method = PruningNetwork(ResNet20(), {}, 1, data=images)
    assert [source.name for source in method.sources] == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    assert method.pruner.body.get_submodule("fc").weight.shape == (3 * (16 + 32 + 64), 64)


def test_a_higher_weight_prunes_more_and_the_rest_still_learns(tmp_path: Path) -> None:
    model, thrifty = net(), net()
    outcome = run(model, RECIPE, tmp_path / "one")
    more = run(thrifty, RECIPE.replace("weight: 0.6", "weight: 1.0"), tmp_path / "two")
    shares = [[row["filters"] for row in report.rows if row.get("filters") is not None] for report in (outcome, more)]
    assert shares[1][-1] < shares[0][-1] < 1
    assert outcome.accuracy > 0.9
    assert set(model.state_dict()) == set(net().state_dict())
    gone = [int((~layer.weight.flatten(1).any(dim=1)).sum()) for layer in (model.conv1, model.conv2, model.fc1)]
    assert sum(gone) == round(36 * (1 - shares[0][-1]))


def test_an_interruption_changes_nothing(tmp_path: Path) -> None:
    whole, broken, again = net(), net(), net()
    run(whole, RECIPE, tmp_path / "whole")
    run_interrupted(broken, again, RECIPE, tmp_path / "broken", 6)
    assert same(whole, again)


def test_wrong_use() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(x)

    with pytest.raises(PccError, match="every feature map of Sum is added to others or returned"):
        PruningNetwork(Sum(), {}, 1, data=data())
    with pytest.raises(PccError, match="beta of 1 or more"):
        PruningNetwork(net(), parse_structures({}), 1, data=data(), beta=0.5)
    with pytest.raises(PccError, match="has to be trained"):
        PruningNetwork(net(), {}, 0, data=data())


class LogSoftmax(nn.Module):
    """Makes of scores what is for classes alone: logarithms, in rows of four."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).view(-1, 4).log_softmax(dim=1)


def test_logits_are_what_the_last_layer_gives() -> None:
    model = LogSoftmax().train()
    method = PruningNetwork(model, {}, 1, data=data())
    x, _ = next(data().batches(0, 60, seed=0))
    assert float(method.pruner(x).detach().min()) == pytest.approx(OPEN, abs=0.5)
