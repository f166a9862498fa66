from pathlib import Path

import pytest
import torch

from pcc.errors import PccError
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.window import Window
from pcc.training.methods.drop_pruning import DropPruning
from tests.training.methods.loop import net, run, run_interrupted, same

RECIPE = """
train: {batch: 60, lr: 0.05, schedule: cosine}
structures: {conv2: {unstructured: {rate: 4}}, "@linear": {unstructured: {rate: 8}}}
stages:
  - train: {epochs: 2}
  - drop-pruning: {epochs: 8, steps: 3, every: 2, p_out: 0.7, p_in: 0.2}
  - train: {epochs: 1}
"""


def test_drop_out_takes_candidates_only_with_its_probability() -> None:
    model = net()
    before = model.fc1.weight.detach().clone()
    DropPruning(model, {"fc1": Unstructured(4)}, 4, steps=4, p_out=0.5).begin()
    gone = model.fc1.weight == 0
    candidates = round((1 - 27 / 64) * 0.75 * before.numel())
    smallest = before.abs().flatten().sort().values[candidates - 1]
    assert bool((before.abs()[gone] <= smallest).all())
    assert abs(int(gone.sum()) / candidates - 0.5) < 0.1
    assert torch.equal(model.fc1.weight[~gone], before[~gone])


def test_drop_in_restores_the_value_a_weight_had() -> None:
    model = net()
    method = DropPruning(model, {"fc1": Unstructured(8)}, 4, steps=4, p_out=1.0, p_in=0.3)
    weight = model.fc1.weight
    before = weight.detach().clone()
    method.begin()
    gone = weight == 0
    assert int(gone.sum()) == round((1 - 27 / 64) * 7 / 8 * weight.numel())
    with torch.no_grad():
        weight += 1  # what was not removed trains on
    method.after_step()
    assert torch.equal(weight == 0, gone)
    method.end_epoch()
    back = gone & (weight != 0)
    assert torch.equal(weight[back], before[back])
    assert int(back.sum()) == method.restored
    assert abs(method.restored / int(gone.sum()) - 0.3) < 0.08
    perturbed = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    method.after_step()
    assert torch.equal(weight[back], perturbed[back] + 1)


def test_the_last_step_is_exact_and_final() -> None:
    model = net()
    with torch.no_grad():
        model.fc1.weight[3] = 0
        model.fc2.weight[:, 5] = 0
    method = DropPruning(model, {"fc1": Unstructured(5)}, 5, steps=3, p_in=0.5)
    for epoch in method:
        with torch.no_grad():
            for parameter in method.parameters():
                parameter += 0.01
        method.after_step()
        assert not model.fc1.weight[3].any()
        assert not model.fc2.weight[:, 5].any()
        if epoch >= 2:
            assert int(model.fc1.weight.count_nonzero()) == round(model.fc1.weight.numel() / 5)


def test_draws_follow_from_seed_and_epoch() -> None:
    models = [net() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.rand(seed + 3)  # another state of torch's own generator
        DropPruning(model, {"@linear": Unstructured(4)}, 4, steps=4, seed=seed).begin()
    assert same(models[0], models[1])
    assert not torch.equal(models[0].fc1.weight, models[2].fc1.weight)


def test_training_reaches_the_budget_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    model = net()
    outcome = run(model, RECIPE, tmp_path / "whole")
    for layer, rate in ((model.conv2, 4), (model.fc1, 8), (model.fc2, 8)):
        assert int(layer.weight.count_nonzero()) == layer.weight.numel() // rate
    assert outcome.accuracy > 0.9
    assert any(row.get("restored", 0) > 0 for row in outcome.rows)
    for epoch in (3, 4, 7):
        again = net()
        resumed = run_interrupted(net(), again, RECIPE, tmp_path / f"killed in {epoch}", epoch)
        assert same(model, again)
        assert resumed.accuracy == outcome.accuracy


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="layer conv1 has the structure 'window'"):
        DropPruning(net(), {"conv1": Window(2)}, 4, steps=2)
    with pytest.raises(PccError, match="4 steps with 2 epochs of retraining after each do not fit into 7 epochs"):
        DropPruning(net(), {"fc1": Unstructured(2)}, 7, steps=4, every=2)
    with pytest.raises(PccError, match="p_out = 0 "):
        DropPruning(net(), {"fc1": Unstructured(2)}, 4, steps=2, p_out=0)
