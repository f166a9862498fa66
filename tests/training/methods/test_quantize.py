from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.conductance import Conductance
from pcc.sparsity.levels import Binary, PowerOfTwo, Ternary, UniformLevels
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.values import Values
from pcc.training.layers import array, prunable
from pcc.training.methods.one_shot import OneShot
from pcc.training.methods.quantize import Quantize
from tests.training.methods.loop import net, run, run_interrupted, same

RECIPE = """
train: {batch: 24, lr: 0.05, weight_decay: 1e-3}
stages:
  - train: {epochs: 5}
  - admm: {epochs: 4, rhos: [1e-3, 1e-2], exact: false, structures: {"@all": {binary: {}}}}
  - quantize: {epochs: 4, structures: {"@all": {binary: {}}}}
"""


def noise(model: nn.Module, size: float, generator: torch.Generator) -> None:
    """What a step of an optimizer does, at worst: every parameter moves, pruned ones too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    "structure", [Binary(), Binary("filter"), Ternary(), UniformLevels(3), PowerOfTwo(3), Conductance(5)]
)
def test_every_weight_ends_on_a_level_of_the_first_scale(structure: Values) -> None:
    model, random = net(), torch.Generator().manual_seed(3)
    method = Quantize(model, {"@all": structure}, epochs=6, shares=[0.5, 0.8, 1.0])
    scales = {layer.name: structure.scale(array(layer.weight)) for layer in method.layers}
    for _ in method:
        noise(model, 0.01, random)
        method.after_step()
    for layer in method.layers:
        weight = array(layer.weight)
        assert np.array_equal(structure.nearest(weight, scales[layer.name]), weight)
        assert np.array_equal(structure.unpack(structure.pack(weight)), weight)


def test_the_closest_weights_are_fixed_first_and_stay_while_the_others_move() -> None:
    model, random = net(), torch.Generator().manual_seed(3)
    structure = UniformLevels(3)
    method = Quantize(model, {"conv2": structure}, epochs=4)
    (layer,) = method.layers
    before = array(layer.weight).copy()
    target = structure.project(before)
    order = np.argsort(np.abs(before - target), axis=None, kind="stable")
    epochs = iter(method)
    next(epochs)
    for share in (0.5, 0.75, 0.875):
        start = array(layer.weight).copy()
        noise(model, 0.003, random)
        method.after_step()
        weight = array(layer.weight)
        still = method.state_dict()["conv2"]["fixed"].numpy().ravel()
        assert (weight == start).ravel()[still].all()
        assert (weight == start).ravel()[
            ~still
        ].mean() < 0.2  # free weights move, unless they are at the end of the range
        assert still.sum() == round(share * weight.size)
        assert np.isin(weight.ravel()[still], np.unique(target)).all()
        assert still[order[: weight.size // 2]].all()
        assert np.array_equal(weight.ravel()[order[: weight.size // 2]], target.ravel()[order[: weight.size // 2]])
        next(epochs)
    assert np.isin(array(layer.weight), np.unique(target)).all()


def test_zeros_stay_and_are_not_counted_in_the_shares() -> None:
    model, random = net(), torch.Generator().manual_seed(3)
    OneShot(model, {"@all": Unstructured(4)}).finish()
    zeros = {name: module.weight == 0 for name, module in prunable(model).items()}
    method = Quantize(model, {"fc1": UniformLevels(3)}, epochs=2, shares=[0.5, 1.0])
    epochs = iter(method)
    next(epochs)
    start = model.fc1.weight.clone()
    noise(model, 0.01, random)
    method.after_step()
    kept = ~zeros["fc1"]
    fixed = method.state_dict()["fc1"]["fixed"]
    assert int(fixed[kept].sum()) == int(fixed.sum()) == round(0.5 * int(kept.sum()))
    assert torch.equal(model.fc1.weight[fixed], start[fixed])
    next(epochs)
    noise(model, 0.01, random)
    method.after_step()
    assert all(torch.equal(module.weight == 0, zeros[name]) for name, module in prunable(model).items())
    assert len(model.fc1.weight[kept].unique()) <= 8
    assert len(model.conv2.weight.unique()) > 100


@pytest.mark.parametrize("structure", [Conductance(4), Binary("filter")])
def test_free_weights_stay_in_the_range_of_the_levels(structure: Values) -> None:
    model = net()
    method = Quantize(model, {"fc1": structure}, epochs=2, shares=[0.5, 1.0])
    limit = torch.tensor(structure.scale(array(model.fc1.weight)) * (3 if structure == Conductance(4) else 1))
    next(iter(method))
    noise(model, 1.0, torch.Generator().manual_seed(3))
    method.after_step()
    assert torch.allclose(model.fc1.weight.detach().abs().amax(dim=1, keepdim=True), limit.expand(16, 1))
    assert float(model.conv2.weight.detach().abs().max()) > 2


def test_a_binary_network_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = net()
    outcome = run(model, RECIPE, tmp_path / "once")
    for module in prunable(model).values():
        assert len(module.weight.abs().unique()) == 1
    assert outcome.accuracy > 0.85
    resumed = net()
    again = run_interrupted(net(), resumed, RECIPE, tmp_path / "resumed", epoch=11)
    assert same(model, resumed)
    assert again.accuracy == outcome.accuracy


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="no layer has a structure"):
        Quantize(net(), {}, epochs=4)
    with pytest.raises(PccError, match="layer conv1 is 'unstructured'"):
        Quantize(net(), {"@all": Unstructured(2)}, epochs=4)
    with pytest.raises(PccError, match="4 shares take at least as many epochs; there are 3"):
        Quantize(net(), {"@all": Binary()}, epochs=3)
    for shares in ([], [0.5, 0.9], [0.9, 0.5, 1.0], [-0.1, 1.0]):
        with pytest.raises(PccError, match="shares ascend"):
            Quantize(net(), {"@all": Binary()}, epochs=4, shares=shares)


def test_free_weights_stay_between_the_least_and_the_largest_level() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16, bias=False))
    with torch.no_grad():
        near = torch.where(torch.arange(256) % 2 == 0, -1.0, 0.3) + 0.02 * torch.randn(256)
        model.get_parameter("0.weight").copy_(near.reshape(16, 16))
    method = Quantize(model, {"@all": Centroids(2)}, epochs=4, shares=(0.0, 1.0))
    method.begin()
    assert float(model.get_parameter("0.weight").detach().mean()) == pytest.approx(-0.35, abs=0.01)
    for _ in range(4):
        method.after_step()
        method.end_epoch()
    levels = model.get_parameter("0.weight").detach().unique()
    assert levels.tolist() == pytest.approx([-1.0, 0.3], abs=0.01)
