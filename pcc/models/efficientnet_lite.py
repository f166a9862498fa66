"""EfficientNet-Lite0 in the key names of the ``efficientnet_lite_pytorch`` package.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in TensorFlow's Lite
form: no squeeze and excitation, ReLU6 in place of swish. The weights were trained in TensorFlow, so strided
convolutions pad unevenly ("SAME").
"""

import torch
import torch.nn.functional as F
from torch import nn

STAGES = (
    (1, 3, 1, 1, 16),
    (6, 3, 2, 2, 24),
    (6, 5, 2, 2, 40),
    (6, 3, 2, 3, 80),
    (6, 5, 1, 3, 112),
    (6, 5, 2, 4, 192),
    (6, 3, 1, 1, 320),
)
"""Expansion, kernel, stride of the first block, blocks, filters."""
EPS = 1e-3
"""TensorFlow's batch norm epsilon."""


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output is ceil(size / stride): where the padding is odd, the end gets the larger
    half."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, filters, kernel, stride, groups=groups, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(
            reversed(input.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding) if any(padding) else input)


class MBConv(nn.Module):
    """1x1 up, depthwise, linear 1x1 down; a shortcut where input and output have one shape."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv2d(channels, width, 1)
            self._bn0 = nn.BatchNorm2d(width, EPS)
        self._depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self._bn1 = nn.BatchNorm2d(width, EPS)
        self._project_conv = SameConv2d(width, filters, 1)
        self._bn2 = nn.BatchNorm2d(filters, EPS)
        self.act = nn.ReLU6()
        self.has_shortcut = stride == 1 and channels == filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.expands:
            x = self.act(self._bn0(self._expand_conv(x)))
        x = self.act(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + shortcut if self.has_shortcut else x


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) to (N, num_classes) logits, 4.7 M parameters."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, EPS)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, kernel, stride, count, filters in STAGES:
            for position in range(count):
                blocks.append(MBConv(channels, filters, kernel, stride if position == 0 else 1, expansion))
                channels = filters
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv2d(channels, 1280, 1)
        self._bn1 = nn.BatchNorm2d(1280, EPS)
        self.act = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self._bn0(self._conv_stem(x)))
        x = self._blocks(x)
        x = self.act(self._bn1(self._conv_head(x)))
        return self._fc(self.dropout(self.pool(x).flatten(1)))
