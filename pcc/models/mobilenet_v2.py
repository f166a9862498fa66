"""MobileNetV2, width 1.0, in torchvision's key names. Sandler et al., "MobileNetV2: Inverted Residuals and Linear
Bottlenecks" (2018)."""

import torch
from torch import nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, filters, blocks, stride of the first block (the paper's table 2)."""


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, ReLU6; padded so that stride 1 keeps the size."""

    def __init__(self, channels: int, filters: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, linear 1x1 down; a shortcut where input and output have one shape."""

    def __init__(self, channels: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormAct(channels, width))
        layers += [
            ConvNormAct(width, width, 3, stride, groups=width),
            nn.Conv2d(width, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and channels == filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """(N, 3, H, W) to (N, num_classes) logits, 3.5 M parameters."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormAct(3, 32, 3, stride=2)]
        channels = 32
        for expansion, filters, blocks, stride in STAGES:
            for position in range(blocks):
                layers.append(InvertedResidual(channels, filters, stride if position == 0 else 1, expansion))
                channels = filters
        layers.append(ConvNormAct(channels, 1280))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
