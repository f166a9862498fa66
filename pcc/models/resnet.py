"""ResNet-18 and ResNet-50 in torchvision's key names. He et al., "Deep Residual Learning for Image Recognition" (2016).

Two ResNet-50 are in use. The paper's (v1, Keras' weights) halves the resolution in the first 1x1 convolution of a
bottleneck; torchvision's (v1.5) does so in the 3x3 convolution that follows. The tensors have the same names and
shapes, so a checkpoint cannot tell which it is for.
"""

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module | None, eps: float, **_: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up around a shortcut; ``stride_on_first`` puts the stride on the first 1x1 (v1), else it is on
    the 3x3 (v1.5)."""

    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, downsample: nn.Module | None, eps: float, *, stride_on_first: bool
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_on_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion, eps)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """(N, 3, H, W) to (N, num_classes) logits; ``depths`` counts the blocks of the four stages."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        *,
        stride_on_first: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for number, depth in enumerate(depths, start=1):
            width = 32 << number
            stage = []
            for position in range(depth):
                stride = 2 if position == 0 and number > 1 else 1
                filters = width * block.expansion
                downsample = None
                if stride != 1 or channels != filters:
                    downsample = nn.Sequential(
                        nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters, eps)
                    )
                stage.append(block(channels, width, stride, downsample, eps, stride_on_first=stride_on_first))
                channels = filters
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(num_classes: int = 1000) -> ResNet:
    """Basic blocks, 11.7 M parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet50(num_classes: int = 1000, *, stride_on_first: bool = False, eps: float = 1e-5) -> ResNet:
    """Bottleneck blocks, 25.6 M parameters; the defaults are torchvision's (v1.5)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, stride_on_first=stride_on_first, eps=eps)


def resnet50_v1(num_classes: int = 1000) -> ResNet:
    """The paper's ResNet-50 as Keras trained it: stride on the first 1x1 of a bottleneck, batch norm epsilon 1e-3."""
    return resnet50(num_classes, stride_on_first=True, eps=1e-3)
