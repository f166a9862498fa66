from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pcc.errors import PccError
from pcc.training.layers import prunable
from pcc.training.methods.vrpge import CLIP, Vrpge, structure_gradient
from tests.training.methods.loop import data, net, run, run_interrupted, same

RECIPE = """
train: {batch: 24, lr: 0.05, weight_decay: 0, clip: 3}
stages:
  - vrpge: {epochs: 6, rate: 2, score_lr: 0.02, structures: {conv1: dense}}
  - train: {epochs: 3}
"""


@pytest.mark.parametrize("draws", [2, 3])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_policy_gradient_has_no_bias(draws: int, preconditioned: bool) -> None:
    """Expected over all masks that can be drawn, against the derivative of the expected loss."""
    torch.set_default_dtype(torch.float64)
    try:
        probabilities = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
        masks = torch.tensor(list(product([0.0, 1.0], repeat=3)))
        losses = torch.tensor([3.0, -1.0, 0.5, 2.0, 7.0, 0.0, 1.5, -4.0])
        chances = (masks * probabilities + (1 - masks) * (1 - probabilities)).prod(dim=1)
        (expected,) = torch.autograd.grad(chances @ losses, probabilities)
        with torch.no_grad():
            mean = torch.zeros(3)
            for picked in product(range(8), repeat=draws):
                mean += chances[list(picked)].prod() * structure_gradient(
                    probabilities, masks[list(picked)], losses[list(picked)], preconditioned=preconditioned
                )
            scale = (probabilities * (1 - probabilities)).sqrt() if preconditioned else torch.ones(3)
        assert torch.allclose(mean, expected * scale)
    finally:
        torch.set_default_dtype(torch.float32)


def test_certain_filters_have_no_gradient() -> None:
    found = structure_gradient(
        torch.tensor([0.0, 1.0, 0.5]),
        torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
        torch.tensor([1.0, 3.0]),
        preconditioned=False,
    )
    assert found.tolist() == [0.0, 0.0, -4.0]


def test_weights_get_the_mean_gradient_of_the_draws_through_filters_that_are_there() -> None:
    model, plain = net().eval(), net().eval()
    method = Vrpge(model, {"conv2": None, "fc1": None}, epochs=1, data=data(), rate=2, seed=3)
    x, y = next(data().batches(0, 24, seed=0))
    masks: list[torch.Tensor] = []

    def compute() -> torch.Tensor:
        masks.append((model.conv1.weight != 0).flatten(1).any(dim=1))
        return F.cross_entropy(model(x), y)

    loss = method.backward(compute)
    assert len(masks) == 2
    assert not torch.equal(masks[0], masks[1])
    expected, losses = torch.zeros_like(plain.conv1.weight), []
    for mask in masks:
        altered = net().eval()
        with torch.no_grad():
            altered.conv1.weight *= mask[:, None, None, None]
        losses.append(F.cross_entropy(altered(x), y))
        losses[-1].backward()
        assert altered.conv1.weight.grad is not None
        expected += altered.conv1.weight.grad * mask[:, None, None, None] / 2
    original = dict(model.named_parameters())["conv1.parametrizations.weight.original"]
    assert original.grad is not None
    assert torch.allclose(original.grad, expected, atol=1e-6)
    assert torch.allclose(loss, torch.stack(losses).mean())
    stacked = torch.stack(masks).float()
    assert method.scores.grad is not None
    assert torch.allclose(
        method.scores.grad,
        structure_gradient(method.scores, stacked, torch.stack(losses).detach(), preconditioned=True),
        atol=1e-5,
    )


def test_the_structure_gradient_is_clipped() -> None:
    model = net().eval()
    method = Vrpge(model, {}, epochs=1, rate=2, data=data())
    x, y = next(data().batches(0, 24, seed=0))
    method.backward(lambda: 1e4 * F.cross_entropy(model(x), y))
    assert method.scores.grad is not None
    assert float(method.scores.grad.norm()) == pytest.approx(CLIP, rel=1e-4)


def test_masks_follow_from_seed_epoch_and_step() -> None:
    def draws(seed: int, epoch: int, step: int) -> list[float]:
        method = Vrpge(net(), {}, epochs=3, data=data(), rate=2, seed=seed)
        method.epoch, method.step = epoch, step
        return torch.rand(4, generator=method.random()).tolist()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert draws(*places[1]) == draws(*places[1])
    assert len({tuple(draws(*place)) for place in places}) == 4


def test_ends_as_a_plain_module_with_an_exact_budget() -> None:
    model, plain = net(), net()
    parameters = dict(model.named_parameters())
    method = Vrpge(model, {"conv1": None}, epochs=2, data=data(), rate=4, score_lr=0.05, seed=1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02)
    for epoch in method:
        for x, y in data().batches(epoch, 24, seed=0):
            optimizer.zero_grad()
            method.backward(lambda x=x, y=y: F.cross_entropy(model(x), y))
            optimizer.step()
            method.after_step()
            assert 0 <= float(method.scores.min()) <= float(method.scores.max()) <= 1
            assert float(method.scores.double().sum()) <= method.kept + 1e-5
    kept = {name: int((module.weight != 0).flatten(1).any(dim=1).sum()) for name, module in prunable(model).items()}
    assert kept["conv2"] + kept["fc1"] == round((12 + 16) / 4)
    assert min(kept.values()) >= 1
    assert (kept["conv1"], kept["fc2"]) == (8, 4)
    assert type(model.conv2) is nn.Conv2d
    assert set(model.state_dict()) == set(plain.state_dict())
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in parameters.items())


def test_outside_a_draw_the_model_is_the_one_that_would_be_kept() -> None:
    model = net().eval()
    method = Vrpge(model, {}, epochs=1, data=data(), rate=3)
    method.load_state_dict(
        {
            "scores": torch.rand(36, generator=torch.Generator().manual_seed(0)),
            "optimizer": method.optimizer.state_dict(),
        }
    )
    x, y = next(data().batches(0, 24, seed=0))
    method.backward(lambda: F.cross_entropy(model(x), y))
    assert (
        sum(int((module.weight != 0).flatten(1).any(dim=1).sum()) for module in (model.conv1, model.conv2, model.fc1))
        == 12
    )
    before = model(x)
    method.epoch = 1
    method.finish()
    assert torch.equal(model(x), before)


def test_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = net()
    outcome = run(model, RECIPE, tmp_path / "once")
    assert outcome.accuracy > 0.8
    for epoch in (3, 7):
        resumed = net()
        run_interrupted(net(), resumed, RECIPE, tmp_path / f"resumed{epoch}", epoch=epoch)
        assert same(model, resumed)


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="1 draws a step have no mean"):
        Vrpge(net(), {}, epochs=1, data=data(), rate=2, draws=1)
    with pytest.raises(PccError, match="a pruning rate of 0"):
        Vrpge(net(), {}, 1, data=data(), rate=0)
    with pytest.raises(PccError, match="a pruning rate of"):
        Vrpge(net(), {}, epochs=1, data=data(), rate=0.5)
    with pytest.raises(PccError, match="vrpge: a budget of 1 does not leave something of each of 3 layers"):
        Vrpge(net(), {}, epochs=1, data=data(), rate=36)
    with pytest.raises(PccError, match="give 1 epoch or more"):
        Vrpge(net(), {}, epochs=0, data=data(), rate=2)
