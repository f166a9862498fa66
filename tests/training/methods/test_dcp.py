"""Channels that tell classes apart stay, as many as the budget says; the others are zero; classifiers leave no
trace."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.training.data import ArrayData, Arrays
from pcc.training.methods.dcp import HEAD, Dcp
from tests.training.methods.loop import data, net, run, run_interrupted, same

RECIPE = """
train: {batch: 60, lr: 0.05, schedule: cosine}
stages:
  - train: {epochs: 2}
  - dcp: {epochs: 3, losses: 1, rate: 2, rounds: 3, batches: 2, batch: 60, steps: 2}
  - train: {epochs: 2}
"""


class Deep(nn.Module):
    """Three convolutions, the last with two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.fc(self.conv3(x).relu().flatten(1))


def deep() -> Deep:
    torch.manual_seed(0)
    return Deep()


def channels(weight: torch.Tensor) -> list[int]:
    return weight.transpose(0, 1).flatten(1).any(dim=1).nonzero().flatten().tolist()


def test_parts_and_places() -> None:
    model = deep()
    method = Dcp(model, {}, 5, data=data(), seed=0, losses=2)
    assert method.parts == [[], ["conv2"], ["conv3"]]
    parts = []
    for _ in range(5):
        parts.append(method.part)
        method.epoch += 1
    assert parts == [0, 0, 1, 1, 2]
    assert [part.in_features for head in method.heads for part in head if isinstance(part, nn.Linear)] == [10, 8]


def test_the_loss_of_a_part_reaches_its_features_alone() -> None:
    model = deep()
    method = Dcp(model, {}, 3, data=data(), seed=0, losses=2)
    x, y = next(data().batches(0, 30, seed=0))
    method.take(x, y)
    model(x)
    penalty = method.penalty()
    assert isinstance(penalty, torch.Tensor)
    penalty.backward()
    assert model.conv1.weight.grad is not None
    assert model.conv1.weight.grad.any()
    assert model.conv2.weight.grad is None
    for head in method.heads:
        classifier = head[-1]
        assert isinstance(classifier, nn.Linear)
        assert classifier.weight.grad is not None
        assert classifier.weight.grad.any()
    with pytest.raises(PccError, match="call take"):
        method.penalty()


def test_the_budget_is_met_and_the_rest_is_zero(tmp_path: Path) -> None:
    model = deep()
    keys = set(model.state_dict())
    outcome = run(model, RECIPE, tmp_path)
    assert set(model.state_dict()) == keys
    assert not hasattr(model.conv1, HEAD)
    kept = channels(model.conv2.weight)
    assert len(kept) == 5
    gone = [channel for channel in range(10) if channel not in kept]
    assert not model.conv1.weight[gone].any()
    assert not model.bn1.weight[gone].any()
    assert not model.bn1.bias[gone].any()
    read = model.conv3.weight.reshape(2, 4, 4, 9).any(dim=3).any(dim=1).flatten()
    assert int(read.sum()) == 4
    assert torch.equal(model.conv2.weight.flatten(1).any(dim=1), read)
    assert outcome.accuracy > 0.9


def noisy() -> ArrayData:
    """Two channels, of which only the second one tells the classes apart."""
    halves = []
    generator = torch.Generator().manual_seed(2)
    for count in (120, 40):
        labels = torch.arange(count) % 2
        images = torch.randint(0, 256, (count, 2, 4, 4), generator=generator, dtype=torch.uint8)
        images[:, 1] = images[:, 1] // 4 + 150 * labels[:, None, None].to(torch.uint8)
        halves += [images, labels]
    return ArrayData("noisy", 2, Arrays(*halves), (0.5, 0.5), (0.3, 0.3))


def selective(weight: float) -> list[int]:
    """Which of three channels a convolution keeps: two carry noise and are loud, the last carries the class."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1, bias=False), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    first, second = model[0], model[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, 0], [-3, 0], [0, 1]]).reshape(3, 2, 1, 1))
        second.weight.copy_(torch.tensor([[2.0, 2, -3], [-2, 2, 3]]).reshape(2, 3, 1, 1))
    method = Dcp(
        model, {}, 1, data=noisy(), seed=0, losses=0, rate=3, rounds=1, batches=2, batch=60, steps=0, weight=weight
    )
    method.begin()
    method.end_epoch()
    method.finish()
    return channels(second.weight)


def test_channels_that_tell_classes_apart_stay() -> None:
    """Reconstruction alone keeps a loud channel, the class's loss the useful one."""
    assert selective(0.0) != [2]
    assert selective(1e4) == [2]


def test_adaptive_selection_ends_early_and_all_gives_the_layer_back() -> None:
    tolerant, strict = deep(), deep()
    method = Dcp(
        tolerant, {}, 1, data=data(), seed=0, losses=0, rate=1, epsilon=10.0, rounds=5, batches=1, batch=60, steps=1
    )
    method.end_epoch()
    assert len(channels(tolerant.conv2.weight)) == 2  # one round
    before = strict.conv2.weight.detach().clone()
    method = Dcp(strict, {}, 1, data=data(), seed=0, losses=0, rate=1, rounds=5, batches=1, batch=60, steps=0)
    method.end_epoch()
    assert torch.equal(strict.conv2.weight, before)


def test_zeros_stay_zero(tmp_path: Path) -> None:
    model = deep()
    with torch.no_grad():
        model.conv2.weight[:, :, 1] = 0
        model.fc.weight[:, ::2] = 0
    run(model, RECIPE, tmp_path)
    assert not model.conv2.weight[:, :, 1].any()
    assert not model.fc.weight[:, ::2].any()


def test_an_interruption_changes_nothing(tmp_path: Path) -> None:
    for epoch in (3, 4):
        whole, broken, again = deep(), deep(), deep()
        run(whole, RECIPE, tmp_path / f"whole{epoch}")
        run_interrupted(broken, again, RECIPE, tmp_path / f"broken{epoch}", epoch)
        assert same(whole, again)


def test_wrong_use() -> None:
    with pytest.raises(PccError, match="give 0 to 2"):
        Dcp(deep(), {}, 9, data=data(), seed=0, losses=3)
    with pytest.raises(PccError, match="give 3 epochs or more, not 2"):
        Dcp(deep(), {}, 2, data=data(), seed=0)
    with pytest.raises(PccError, match=r"pruning rate of 0.9"):
        Dcp(net(), {}, 3, data=data(), seed=0, losses=1, rate=0.9)
    with pytest.raises(PccError, match="epsilon are 0 or more"):
        Dcp(net(), {}, 3, data=data(), seed=0, losses=1, epsilon=-1)


def test_activations_in_place_change_nothing() -> None:
    chosen = []
    for in_place in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=in_place)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=in_place)),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)),
        )
        method = Dcp(model, {}, 2, data=data(), seed=0, losses=1, rounds=4, batches=1, batch=60, steps=1)
        method.end_epoch()
        method.end_epoch()
        method.finish()
        chosen.append(channels(model.get_submodule("2").get_parameter("weight")))
    assert chosen[0] == chosen[1] != [0, 1, 2, 3]
