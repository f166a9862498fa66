import torch
from torch import nn

from pcc.models.cifar import ResNet20
from pcc.models.resnet import BasicBlock
from pcc.sparsity.filters import Filter
from pcc.training.methods.one_shot import OneShot
from pcc.training.methods.train import Train
from pcc.training.methods.unused_paths import UnusedPaths
from pcc.training.steps import Training, make_optimizer
from tests.training.methods.loop import shaped


class Chain(nn.Module):
    """(N, 2, 5, 5) to (N, 3) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.conv3 = nn.Conv2d(8, 6, 3), nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4 * 9, 3)
        nn.init.normal_(self.bn1.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.conv3(torch.relu(self.conv2(x)))).flatten(1))


def unused(model: nn.Module, *input_shape: int) -> None:
    list(UnusedPaths(model, {}, data=shaped(*(input_shape or (2, 5, 5)))))


def test_a_filter_goes_with_the_channel_that_it_feeds() -> None:
    torch.manual_seed(0)
    model = Chain()
    list(OneShot(model, {"conv1": Filter(2), "conv3": Filter(2)}))
    alive1, alive3 = (layer.weight.flatten(1).any(1) for layer in (model.conv1, model.conv3))
    assert (int(alive1.sum()), int(alive3.sum())) == (4, 2)
    unused(model)
    assert torch.equal(model.conv2.weight.transpose(0, 1).flatten(1).any(1), alive1)
    assert torch.equal(model.bn1.bias != 0, alive1)
    assert torch.equal(model.fc.weight.reshape(3, 4, 9).transpose(0, 1).flatten(1).any(1), alive3)
    assert torch.equal(model.conv3.bias != 0, alive3)
    assert model.conv2.weight.flatten(1).any(1).all()


def test_what_nobody_reads_goes_back_to_the_first_layer() -> None:
    """And the function stays as it was: nothing of it was read."""
    torch.manual_seed(0)
    model = Chain().eval()
    model.conv3.weight.data[:, 2:5] = 0  # conv2 keeps 3 filters,
    model.conv2.weight.data[[0, 1, 5], :4] = 0  # which read 4 channels of conv1
    x = torch.randn(3, 2, 5, 5)
    with torch.no_grad():
        before = model(x)
        unused(model)
        torch.testing.assert_close(model(x), before)
    assert model.conv2.weight.flatten(1).any(1).tolist() == [True, True, False, False, False, True]
    assert model.conv1.weight.flatten(1).any(1).tolist() == [False] * 4 + [True] * 4


def test_maps_that_are_added_stay() -> None:
    torch.manual_seed(0)
    model = ResNet20()
    list(OneShot(model, {"layer1.*": Filter(2)}))
    unused(model, 3, 32, 32)
    for block in model.layer1:
        assert isinstance(block, BasicBlock)
        assert (
            int(block.conv1.weight.flatten(1).any(1).sum())
            == int(block.conv2.weight.transpose(0, 1).flatten(1).any(1).sum())
            == 8
        )
        assert block.conv1.weight.transpose(0, 1).flatten(1).any(1).all()


def test_dead_paths_do_not_wake() -> None:
    torch.manual_seed(0)
    model = Chain()
    list(OneShot(model, {"conv1": Filter(2)}))
    unused(model)
    dead = {name: value == 0 for name, value in model.state_dict().items()}
    method = Train(model, {}, 1)
    optimizer = make_optimizer(method, Training(lr=0.1))
    for _ in method:
        for _ in range(3):
            optimizer.zero_grad()
            method.backward(lambda: model(torch.randn(4, 2, 5, 5)).square().sum())
            optimizer.step()
            method.after_step()
    channels = dead["bn1.bias"]
    assert channels.sum() == 4
    assert not model.bn1.bias[channels].any()
    for name in ("conv1.weight", "conv2.weight"):
        assert not model.state_dict()[name][dead[name]].any()
