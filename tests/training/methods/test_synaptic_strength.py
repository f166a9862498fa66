"""Strengths compute what the weights did; the strongest connections stay; the module that is left is plain."""

from pathlib import Path

import pytest
import torch

from pcc.errors import PccError
from pcc.models.cifar import ResNet20
from pcc.training.methods.synaptic_strength import SynapticStrength, input_scales, strongest
from pcc.training.methods.wiring import Wiring, connection_norms
from tests.training.methods.loop import data, net, run, run_interrupted, same, shaped

RECIPE = """
train: {batch: 60, lr: 0.05, schedule: cosine}
stages:
  - train: {epochs: 4}
  - synaptic-strength: {epochs: 3, rate: 4, weight: 2e-3}
  - train: {epochs: 3}
"""
CHANNELS = {"conv1": 1, "conv2": 8, "fc1": 12}


def connections(model: torch.nn.Module) -> int:
    return sum(
        int((connection_norms(model.get_parameter(f"{name}.weight"), channels) > 0).sum())
        for name, channels in CHANNELS.items()
    )


def test_the_forward_is_what_it_was() -> None:
    torch.manual_seed(3)
    model = ResNet20().train()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight.uniform_(-0.5, 1.5)
    keys = set(model.state_dict())
    parameters = {name for name, _ in model.named_parameters()}
    model.eval()
    x = torch.randn(2, 3, 12, 12)
    before = model(x)
    method = SynapticStrength(model, {}, 1, data=shaped(3, 12, 12), rate=1)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    assert "fc" not in method.strengths()
    assert len(method.strengths()) == 21
    method.finish()
    assert set(model.state_dict()) == keys
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    assert {
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.is_leaf
    } == parameters


def test_strength_is_the_norm_of_the_connection_times_the_scale_of_its_map() -> None:
    model = ResNet20()
    with torch.no_grad():
        model.bn1.weight.fill_(3.0)
        model.layer1[0].bn2.weight.fill_(4.0)  # type: ignore[union-attr]
    scales = input_scales(Wiring(model, (3, 12, 12)))
    assert torch.equal(scales["conv1"], torch.ones(3))
    assert torch.equal(scales["layer1.0.conv1"], torch.full((16,), 3.0))
    torch.testing.assert_close(scales["layer1.1.conv1"], torch.full((16,), 5.0))
    norms = connection_norms(model.layer1[1].conv1.weight, 16)  # type: ignore[union-attr]
    method = SynapticStrength(model, {}, 1, data=shaped(3, 12, 12), rate=2)
    torch.testing.assert_close(method.strengths()["layer1.1.conv1"].detach(), 5 * norms.detach())


def test_the_strongest_stay() -> None:
    strengths = [torch.tensor([[0.1, 0.2]]), torch.tensor([[5.0, 3.0], [4.0, 3.0]])]
    kept = strongest(strengths, 4)
    assert [mask.tolist() for mask in kept] == [[[False, True]], [[True, True], [True, False]]]


def test_budget_and_least_strengths() -> None:
    model = net()
    method = SynapticStrength(model, {}, 1, data=data(), rate=5)
    assert method.connections == 8 + 12 * 8 + 16 * 12
    strengths = {
        name: strength.detach() / strength.detach().square().sum(dim=1).mean().sqrt()
        for name, strength in method.strengths().items()
    }
    method.finish()
    stays = {name: connection_norms(model.get_submodule(name).weight, CHANNELS[name]) > 0 for name in CHANNELS}  # type: ignore[arg-type]
    assert sum(int(mask.sum()) for mask in stays.values()) == method.budget == round(296 / 5)
    least_kept = torch.cat([strengths[name][stays[name]] for name in CHANNELS]).min()
    assert torch.cat([strengths[name][~stays[name]] for name in CHANNELS]).max() <= least_kept


def test_zeros_stay_zero_under_training(tmp_path: Path) -> None:
    model = net()
    with torch.no_grad():
        model.conv2.weight[:, :, 0] = 0
        model.conv2.weight[3] = 0
    run(model, RECIPE, tmp_path)
    assert not model.conv2.weight[:, :, 0].any()
    assert not model.conv2.weight[3].any()
    assert model.conv2.weight.isfinite().all()


def test_training_prunes_to_the_budget_and_learns(tmp_path: Path) -> None:
    model = net()
    keys = set(model.state_dict())
    outcome = run(model, RECIPE, tmp_path)
    assert set(model.state_dict()) == keys
    assert connections(model) == round(296 / 4)
    assert outcome.accuracy > 0.9
    cut = [row["cut"] for row in outcome.rows if row.get("cut") is not None]
    assert cut[-1] < cut[0]


def test_an_interruption_changes_nothing(tmp_path: Path) -> None:
    whole, broken, again = net(), net(), net()
    run(whole, RECIPE, tmp_path / "whole")
    run_interrupted(broken, again, RECIPE, tmp_path / "broken", 6)
    assert same(whole, again)


def test_wrong_options() -> None:
    with pytest.raises(PccError, match=r"pruning rate of 0.5"):
        SynapticStrength(net(), {}, 1, data=data(), rate=0.5)
    with pytest.raises(PccError, match="weight is -1"):
        SynapticStrength(net(), {}, 1, data=data(), rate=2, weight=-1)
