"""Which maps can be taken away; a map that is taken away is zero wherever it is read, also after training."""

import pytest
import torch
from torch import nn

from pcc.errors import PccError
from pcc.models.cifar import ResNet20
from pcc.models.efficientnet_lite import EfficientNetLite0
from pcc.models.mobilenet_v2 import MobileNetV2
from pcc.training.methods.wiring import Wiring, connection_norms, per_channel, per_connection, per_weight
from tests.training.methods.loop import net


class Branches(nn.Module):
    """A map read twice, a depthwise convolution on the way, groups, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 6, 3, padding=1, groups=2)
        self.right = nn.Conv2d(8, 6, 1, bias=False)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.depthwise(self.stem(x).relu())).relu()
        x = self.left(x) + self.right(x)
        x = self.twice(self.twice(x))
        return self.fc(x.flatten(1))


def test_maps_that_are_added_or_returned_stay() -> None:
    wiring = Wiring(Branches(), (2, 2, 2))
    assert list(wiring.nodes) == ["stem", "left", "right", "fc"]
    assert list(wiring.sources) == ["stem"]
    stem = wiring.sources["stem"]
    assert [(reader.name, reader.span) for reader in stem.readers] == [("left", 1), ("right", 1)]
    assert [type(part) for part in stem.between] == [nn.Conv2d, nn.BatchNorm2d]
    assert wiring.reads_input("stem")
    assert not wiring.reads_input("left")


def test_silent_maps_are_zero_where_they_are_read_and_stay_so() -> None:
    torch.manual_seed(1)
    model = Branches()
    with torch.no_grad():
        assert model.norm.bias is not None
        model.norm.bias.fill_(1.0)
    stem = Wiring(model, (2, 2, 2)).sources["stem"]
    dead = torch.tensor([False, True, False, False, False, True, False, True])
    read: list[torch.Tensor] = []
    model.left.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    x = torch.randn(3, 2, 2, 2)
    scores = model(x)
    stem.silence(dead)
    assert torch.equal(stem.unread(), dead)
    assert not torch.equal(model(x), scores)
    assert torch.equal((read[-1] != 0).any(dim=0).flatten(1).any(dim=1), ~dead)
    model(x).square().sum().backward()
    for part in (model.stem, model.depthwise, model.norm):
        for values in (part.weight, part.bias):
            assert isinstance(values, torch.Tensor)
            assert values.grad is not None
            assert not values.grad[dead].any()


def test_spans_of_flattened_maps() -> None:
    wiring = Wiring(net(), (1, 8, 8))
    assert {
        name: [(reader.name, reader.span) for reader in source.readers] for name, source in wiring.sources.items()
    } == {
        "conv1": [("conv2", 1)],
        "conv2": [("fc1", 4)],
        "fc1": [("fc2", 1)],
    }
    conv2 = wiring.sources["conv2"]
    dead = torch.arange(12) == 5
    conv2.silence(dead)
    assert torch.equal((wiring.modules["fc1"].weight == 0).all(dim=0).nonzero().flatten(), torch.arange(20, 24))  # type: ignore[union-attr]


def test_zoo() -> None:
    """In residual blocks all but the last convolution; in inverted ones the first, through the depthwise one."""
    assert set(Wiring(ResNet20(), (3, 32, 32)).sources) == {
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    }
    mobile = Wiring(MobileNetV2(), (3, 64, 64))
    assert [len(source.between) for source in mobile.sources.values() if len(source.readers) == 1].count(3) >= 16
    assert len(Wiring(EfficientNetLite0(), (3, 64, 64)).sources) >= 16


def test_views_of_grouped_weights() -> None:
    weight = torch.randn(6, 4, 3, 3)
    norms = connection_norms(weight, 4)
    torch.testing.assert_close(norms, weight.square().sum(dim=(2, 3)).sqrt())
    channels = per_channel(norms, 2)
    torch.testing.assert_close(channels[5], weight[3:, 1].norm())
    connections = per_connection(torch.arange(8.0), 6, 2)
    assert connections.tolist() == [[0, 1, 2, 3]] * 3 + [[4, 5, 6, 7]] * 3
    assert torch.equal(per_weight(connections, torch.ones(6, 8))[0], torch.tensor([0.0, 0, 1, 1, 2, 2, 3, 3]))


def test_a_forward_that_cannot_be_imported() -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(PccError, match="cannot follow the feature maps of Asks: "):
        Wiring(Asks(), (3, 4, 4))


class SharedNorm(nn.Module):
    """Two branches with one batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.reads_left, self.reads_right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.norm(self.left(x)), self.norm(self.right(x))
        return self.reads_left(left.relu()) + self.reads_right(right.relu())


def test_maps_of_a_batch_norm_that_runs_twice_stay() -> None:
    assert not Wiring(SharedNorm(), (3, 8, 8)).sources
