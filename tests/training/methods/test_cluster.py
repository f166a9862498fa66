from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pcc.errors import PccError
from pcc.sparsity.centroids import Centroids
from pcc.sparsity.unstructured import Unstructured
from pcc.training.layers import array, prunable
from pcc.training.methods.cluster import Cluster
from pcc.training.methods.one_shot import OneShot
from tests.training.methods.loop import net, run, run_interrupted, same

RECIPE = """
train: {batch: 24, lr: 0.05, weight_decay: 1e-3}
stages:
  - train: {epochs: 5}
  - one-shot: {structures: {"@all": {unstructured: {rate: 3}}}}
  - cluster: {epochs: 4, structures: {conv1: dense, "@all": {centroids: {clusters: 5}}}}
"""


def test_begins_with_every_weight_at_its_centroid() -> None:
    model = net()
    method = Cluster(model, {"@all": Centroids(4)}, epochs=1)
    expected = {layer.name: layer.structure.project(array(layer.weight)) for layer in method.layers}
    method.begin()
    for layer in method.layers:
        assert torch.allclose(layer.weight, torch.from_numpy(expected[layer.name]), rtol=0, atol=1e-7)


def test_a_centroid_moves_by_the_mean_gradient_of_its_members() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.2, -2.0, 0.0]]))
    method = Cluster(model, {"@all": Centroids(2)}, epochs=1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method.begin()
    assert torch.allclose(model.weight, torch.tensor([[1.1, 1.1, -2.0, 0.0]]))
    method.backward(lambda: model(torch.tensor([[1.0, 3.0, 5.0, 7.0]])).sum())
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[2.0, 2.0, 5.0, 0.0]]
    optimizer.step()
    method.after_step()
    assert torch.allclose(model.weight, torch.tensor([[0.9, 0.9, -2.5, 0.0]]))


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam])
def test_members_stay_equal_and_zeros_zero(optimizer_class: type[torch.optim.SGD] | type[torch.optim.Adam]) -> None:
    model = net()
    OneShot(model, {"@all": Unstructured(3)}).finish()
    zeros = {name: module.weight == 0 for name, module in prunable(model).items()}
    method = Cluster(model, {"fc1": Centroids(4), "conv2": Centroids(1)}, epochs=1)
    optimizer = optimizer_class(method.parameters(), lr=0.01)
    random = torch.Generator().manual_seed(0)
    before = model.fc1.weight.clone()
    for _ in method:
        before = model.fc1.weight.clone()
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.randn(8, 1, 8, 8, generator=random)
            method.backward(lambda x=x: F.cross_entropy(model(x), torch.arange(8) % 4))
            optimizer.step()
            method.after_step()
    assert not torch.equal(before, model.fc1.weight)
    assert len(model.fc1.weight.unique()) == 5
    assert len(model.conv2.weight.unique()) == 2
    assert all(torch.equal(module.weight == 0, zeros[name]) for name, module in prunable(model).items())


def test_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = net()
    outcome = run(model, RECIPE, tmp_path / "once")
    assert outcome.accuracy > 0.9
    for name, module in prunable(model).items():
        values = module.weight[module.weight != 0].unique()
        assert len(values) > 5 if name == "conv1" else len(values) <= 5
    resumed = net()
    run_interrupted(net(), resumed, RECIPE, tmp_path / "resumed", epoch=7)
    assert same(model, resumed)


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="no layer has a structure"):
        Cluster(net(), {}, epochs=1)
    with pytest.raises(PccError, match="layer conv1 is 'unstructured': it takes centroids"):
        Cluster(net(), {"@all": Unstructured(2)}, epochs=1)
