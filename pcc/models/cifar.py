"""Networks for CIFAR-10's 32x32 photos: ResNet-20, VGG-16 as pruning papers train it, and a VGG that trains on two
cores.

ResNet-20 is section 4.2 of He et al., "Deep Residual Learning for Image Recognition" (2016), but for its shortcuts:
where the paper pads with zeros (option A), these have a 1x1 convolution and a batch norm (option B), so that the graph
has nothing but layers; 2,752 parameters more.
"""

import torch
from torch import nn

from pcc.models.resnet import BasicBlock
from pcc.models.vgg import CONFIGURATION_D, vgg_features


class ResNet20(nn.Module):
    """(N, 3, H, W) to (N, num_classes) logits; three stages of three basic blocks of 16, 32 and 64 filters, 0.27 M
    parameters."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, 1)
        self.layer2 = _stage(16, 32, 2)
        self.layer3 = _stage(32, 64, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    eps = 1e-5
    downsample = None
    if stride != 1:
        downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width, eps))
    return nn.Sequential(
        BasicBlock(channels, width, stride, downsample, eps),
        *(BasicBlock(width, width, 1, None, eps) for _ in range(2)),
    )


class CifarVGG(nn.Module):
    """(N, 3, H, W) to (N, num_classes) logits: 3x3 convolutions with batch norms, the mean of each map, one fully
    connected layer.

    ``configuration`` has the filters of each convolution; None is a 2x2 max pooling.
    """

    def __init__(self, configuration: tuple[int | None, ...], num_classes: int = 10) -> None:
        super().__init__()
        self.features = vgg_features(configuration, batch_norm=True, bias=False)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear([filters for filters in configuration if filters is not None][-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.avgpool(self.features(x)).flatten(1))


def vgg8(num_classes: int = 10) -> CifarVGG:
    """Seven convolutions of 32 to 256 filters, 1.17 M parameters."""
    return CifarVGG((32, None, 64, 64, None, 128, 128, None, 256, 256), num_classes)


def vgg16_cifar(num_classes: int = 10) -> CifarVGG:
    """VGG-16's thirteen convolutions, 14.7 M parameters; the mean of the 2x2 maps takes the place of the last
    pooling."""
    return CifarVGG(CONFIGURATION_D[:-1], num_classes)
