from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.filters import Filter
from pcc.sparsity.levels import Binary
from pcc.sparsity.unstructured import Unstructured
from pcc.training.layers import array, prunable
from pcc.training.methods.admm import Admm
from pcc.training.methods.one_shot import OneShot
from tests.training.methods.loop import net, run, run_interrupted, same

RECIPE = """
train: {batch: 24, lr: 0.05, weight_decay: 1e-3}
structures: {conv1: dense, "@all": {unstructured: {rate: 4}}}
stages:
  - train: {epochs: 4}
  - admm: {epochs: 4, rhos: [1e-3, 1e-2]}
  - train: {epochs: 2}
"""


def linear(*weights: float) -> nn.Linear:
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def move(model: nn.Linear, *weights: float) -> None:
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))


def test_two_rounds_by_hand() -> None:
    model = linear(3.0, 2.0, -1.0, 0.5)
    method = Admm(model, {"@all": Unstructured(2)}, epochs=2, rhos=[0.5])
    epochs = iter(method)
    next(epochs)
    (z,), (u,) = method.z.values(), method.u.values()
    assert z.tolist() == [[3.0, 2.0, 0.0, 0.0]]
    assert u.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert float(torch.as_tensor(method.penalty()).detach()) == pytest.approx(0.25 * (1 + 0.25))
    move(model, 3.0, 1.0, -1.5, 0.25)
    next(epochs)
    (z,), (u,) = method.z.values(), method.u.values()
    assert z.tolist() == [[3.0, 0.0, -1.5, 0.0]]
    assert u.tolist() == [[0.0, 1.0, 0.0, 0.25]]
    # |W - Z + U|^2 = 0 + (1 + 1)^2 + 0 + (0.25 + 0.25)^2
    assert float(torch.as_tensor(method.penalty()).detach()) == pytest.approx(0.25 * 4.25)
    move(model, 3.0, 1.0, -1.5, 0.25)
    assert next(epochs, None) is None
    (z,), (u,) = method.z.values(), method.u.values()
    assert z.tolist() == [[3.0, 2.0, 0.0, 0.0]]  # of W + U = 3, 2, -1.5, 0.5
    assert u.tolist() == [[0.0, 0.0, -1.5, 0.5]]
    assert model.weight.tolist() == [[3.0, 0.0, -1.5, 0.0]]  # of W alone


def test_the_penalty_pulls_towards_z() -> None:
    model = linear(3.0, 2.0, -1.0, 0.5)
    method = Admm(model, {"@all": Unstructured(2)}, epochs=1, rhos=[0.1])
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    method.begin()
    method.backward(lambda: (model.weight * 0).sum())
    optimizer.step()
    assert np.allclose(array(model.weight), [[3.0, 2.0, -0.9, 0.45]])


def test_z_has_the_structure_and_rho_takes_the_dual_with_it() -> None:
    model, random = net(), torch.Generator().manual_seed(0)
    method = Admm(model, {"conv1": None, "@conv": Filter(3), "@all": Unstructured(4)}, epochs=4, rhos=[1e-3, 1e-1])
    assert [layer.name for layer in method.layers] == ["conv2", "fc1", "fc2"]
    rhos, expected = [], {}
    for epoch in method:
        rhos.append(method.rho)
        with torch.no_grad():
            for layer in method.layers:
                layer.weight.add_(0.02 * torch.randn(layer.weight.shape, generator=random))
        if epoch == 1:
            for layer in method.layers:
                moved = layer.weight + method.u[layer.name]
                expected[layer.name] = (moved - layer.project(moved)) / 100
        if epoch == 2:
            assert all(torch.allclose(method.u[name], dual, atol=1e-7) for name, dual in expected.items())
        for layer in method.layers:
            z = array(method.z[layer.name])
            assert np.array_equal(layer.structure.project(z), z)
    assert rhos == [1e-3, 1e-3, 1e-1, 1e-1]
    assert int((model.conv2.weight != 0).flatten(1).any(dim=1).sum()) == 4
    assert int(model.fc1.weight.count_nonzero()) == 192
    assert bool((model.conv1.weight != 0).all())


def test_z_is_updated_every_few_epochs() -> None:
    model = linear(3.0, 2.0, -1.0, 0.5)
    method = Admm(model, {"@all": Unstructured(2)}, epochs=4, rhos=[1e-2], every=2)
    kept = []
    for _ in method:
        kept.append(method.z[""].nonzero()[:, 1].tolist())
        move(model, 0.0, 1.0, 2.0, 3.0)
    assert kept == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_zeros_stay_and_inexact_ends_near_the_set() -> None:
    model = net()
    OneShot(model, {"@all": Unstructured(3)}).finish()
    zeros = {name: module.weight == 0 for name, module in prunable(model).items()}
    method = Admm(model, {"fc1": Binary(keep_zeros=True)}, epochs=1, rhos=[1e-2], exact=False)
    for _ in method:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01
        method.after_step()
    assert all(torch.equal(module.weight == 0, zeros[name]) for name, module in prunable(model).items())
    assert not method.ends_changed
    assert len(model.fc1.weight.abs().unique()) > 10


def test_prunes_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = net()
    outcome = run(model, RECIPE, tmp_path / "once")
    assert outcome.accuracy > 0.9
    assert [int(module.weight.count_nonzero()) for module in prunable(model).values()] == [72, 216, 192, 16]
    for epoch in (6, 8):
        resumed = net()
        run_interrupted(net(), resumed, RECIPE, tmp_path / f"resumed{epoch}", epoch=epoch)
        assert same(model, resumed)


def test_wrong_use() -> None:
    model = net()
    with pytest.raises(PccError, match="no layer has a structure"):
        Admm(model, {}, epochs=1)
    with pytest.raises(PccError, match="rhos are positive"):
        Admm(model, {"@all": Binary()}, epochs=1, rhos=[0.0])
    with pytest.raises(PccError, match="every 5 epochs of 4"):
        Admm(model, {"@all": Binary()}, epochs=4, every=5)
