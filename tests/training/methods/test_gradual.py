from pathlib import Path

import pytest
import torch

from pcc.errors import PccError
from pcc.sparsity.budget import budget
from pcc.sparsity.columns import Column
from pcc.sparsity.kernels import Kernels
from pcc.sparsity.levels import Ternary
from pcc.sparsity.unstructured import Unstructured
from pcc.sparsity.window import Window
from pcc.training.methods.gradual import Gradual, partial
from tests.training.methods.loop import net, run, run_interrupted, same

RECIPE = """
train: {batch: 60, lr: 0.1, schedule: cosine}
structures:
  conv1: {window: {rate: 2.25}}
  conv2: {window: {rate: 2.25, kernels: 2}}
  "@linear": {unstructured: {rate: 4}}
stages:
  - gradual: {epochs: 7, start: 1, end: 5, schedule: linear, regrow: REGROW}
"""


def kept(method: Gradual) -> list[int]:
    return [int(layer.weight.count_nonzero()) for layer in method.layers]


def perturb(method: Gradual) -> None:
    """What an optimizer's step does to every weight."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    method.after_step()


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("linear", [0, 1 / 4, 2 / 4, 3 / 4, 1, 1]), ("cubic", [0, 1 - 27 / 64, 7 / 8, 63 / 64, 1, 1])],
)
def test_weights_follow_the_schedule(schedule: str, shares: list[float]) -> None:
    model = net()
    method = Gradual(model, {"fc1": Unstructured(4)}, 6, start=1, end=5, schedule=schedule)  # type: ignore[arg-type]
    size = model.fc1.weight.numel()
    for epoch in method:
        perturb(method)
        assert method.share == pytest.approx(shares[epoch])
        assert kept(method) == [size if shares[epoch] == 0 else budget(size, 1 / (1 - 0.75 * shares[epoch]))]
    assert kept(method) == [size // 4]


def test_zeros_stay_between_steps_and_for_good() -> None:
    model = net()
    method = Gradual(model, {"conv2": Kernels(rate=4)}, 6, end=3)
    gone = torch.zeros_like(model.conv2.weight, dtype=torch.bool)
    for _ in method:
        before = model.conv2.weight == 0
        assert bool(before[gone].all())
        perturb(method)
        gone = model.conv2.weight == 0
        assert torch.equal(before, gone)
    assert int((~gone).sum()) == 96 // 4 * 9


def test_regrow_brings_weights_back_until_the_end_but_not_what_came_in_as_zero() -> None:
    model = net()
    with torch.no_grad():
        model.fc1.weight[0] = 0
        model.fc2.weight[0, :3] = 0
    method = Gradual(model, {"fc1": Unstructured(4)}, 5, end=3, regrow=True)
    for epoch in method:
        pruned = int(model.fc1.weight.count_nonzero())
        perturb(method)
        trained = int(model.fc1.weight.count_nonzero())
        assert trained == (15 * 48 if epoch < 2 else pruned)
        assert not model.fc1.weight[0].any()
        assert not model.fc2.weight[0, :3].any()
    assert kept(method) == [16 * 48 // 4]


def test_designed_patterns_come_with_the_first_step() -> None:
    model = net()
    method = Gradual(model, {"conv2": Kernels("designed", 2)}, 4, end=4, schedule="linear")
    method.begin()
    of_connection = model.conv2.weight.count_nonzero(dim=(2, 3))
    assert set(of_connection.unique().tolist()) == {0, 4}
    assert int((of_connection > 0).sum()) == budget(96, 1 / (1 - 0.5 / 4))


def test_partial_grades_every_rate() -> None:
    assert partial(Column(4, multiple=2), 0.5) == Column(1 / (1 - 0.375), multiple=2)
    assert partial(Window(2.25, 2), 0) == Window(1, 1)
    assert partial(Window(2.25, 2), 1) == Window(2.25, 2)


@pytest.mark.parametrize("regrow", ["false", "true"])
def test_training_reaches_the_budget_and_a_resumed_run_is_the_same(tmp_path: Path, regrow: str) -> None:
    recipe = RECIPE.replace("REGROW", regrow)
    model, again = net(), net()
    outcome = run(model, recipe, tmp_path / "whole")
    of_connection = model.conv2.weight.count_nonzero(dim=(2, 3))
    assert set(of_connection.unique().tolist()) == {0, 4}
    assert bool(((of_connection > 0).sum(dim=1) == 4).all())
    assert int(model.fc1.weight.count_nonzero()) == 16 * 48 // 4
    assert outcome.accuracy > 0.9
    assert [row["share"] for row in outcome.rows[1:]] == [0, 0.25, 0.5, 0.75, 1, 1, 1]

    for epoch in (1, 3, 6):
        folder = tmp_path / f"killed in {epoch}"
        resumed = run_interrupted(net(), again := net(), recipe, folder, epoch)
        assert same(model, again)
        assert resumed.accuracy == outcome.accuracy


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="no layer has a structure"):
        Gradual(net(), {}, 3, end=2)
    with pytest.raises(PccError, match="from epoch 2 to 2 of 3"):
        Gradual(net(), {"fc1": Unstructured(2)}, 3, start=2, end=2)
    with pytest.raises(PccError, match="layer fc1: the structure 'ternary' has no rate"):
        Gradual(net(), {"fc1": Ternary()}, 3, end=2)
