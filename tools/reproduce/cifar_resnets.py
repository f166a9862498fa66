"""ResNet-20 to 56 for CIFAR-10 as He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, have
them, for the weights that github.com/akamaster/pytorch_resnet_cifar10 publishes, and the photos as those were trained
on them."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from pcc.models.preprocess import CIFAR10, TORCHVISION
from pcc.models.resnet import BasicBlock
from pcc.training.data.packaged import PACKAGED

BORDER = 4
"""Pixels, of which a random part of the photo's size is taken."""


class Subsample(nn.Module):
    """A shortcut without weights (option A): every second pixel, and as many maps of zeros as are missing."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.maps = maps
        """On either side."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.maps, self.maps))


class CifarResNet(nn.Module):
    """(N, 3, H, W) to (N, 10) logits; three stages of ``blocks`` basic blocks of 16, 32 and 64 filters."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


def _stage(channels: int, width: int, blocks: int) -> nn.Sequential:
    shortcut = None if channels == width else Subsample((width - channels) // 2)
    first = BasicBlock(channels, width, 1 if channels == width else 2, shortcut, 1e-5)
    return nn.Sequential(first, *(BasicBlock(width, width, 1, None, 1e-5) for _ in range(blocks - 1)))


def resnet20() -> CifarResNet:
    """0.27 M parameters."""
    return CifarResNet(3)


def resnet56() -> CifarResNet:
    """0.85 M parameters."""
    return CifarResNet(9)


class Photos(Dataset[tuple[Tensor, int]]):
    """Photos, fp32 (N, 3, H, W), and their labels; where they have a border, a random part without it, every second one
    mirrored."""

    classes = 10

    def __init__(self, photos: Tensor, labels: Tensor, border: int = 0) -> None:
        self.photos, self.labels, self.border = functional.pad(photos, (border,) * 4), labels.tolist(), border

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = self.photos[index]
        if self.border:
            down, right = torch.randint(2 * self.border + 1, (2,)).tolist()
            x = x[:, down : x.shape[1] - 2 * self.border + down, right : x.shape[2] - 2 * self.border + right]
            if torch.rand(()) < 0.5:
                x = x.flip(2)
        return x, self.labels[index]


def cifar10() -> tuple[Photos, Photos]:
    """Training and test photos, normalised by the means and deviations of ImageNet, as the authors do it."""
    data = PACKAGED["cifar10"].open().augmented("none")
    train = data.train_samples(torch.arange(data.train_size), torch.zeros(data.train_size, 6))
    test = data.test_samples(torch.arange(data.test_size))
    return Photos(_normalised(train[0]), train[1], BORDER), Photos(_normalised(test[0]), test[1])


def _normalised(photos: Tensor) -> Tensor:
    """From CIFAR-10's means and deviations to ImageNet's."""
    mean, std, other_mean, other_std = (
        torch.tensor(values).reshape(-1, 1, 1)
        for values in (CIFAR10.mean, CIFAR10.std, TORCHVISION.mean, TORCHVISION.std)
    )
    return photos.mul_(std / other_std).add_((mean - other_mean) / other_std)
