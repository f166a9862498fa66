"""Families of classifiers and of dense prediction."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def inception() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = F.local_response_norm(net.stem(x), 5)
        pooled = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return torch.cat([branch(pooled) for branch in net.branches], 1)

    pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(8, 4, 1))
    factored = nn.Sequential(
        nn.Conv2d(8, 4, (1, 3), padding=(0, 1)), nn.ReLU(), nn.Conv2d(4, 4, (3, 1), padding=(1, 0))
    )
    average = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv_bn(8, 4, 1))
    return Net(forward, stem=conv_bn(3, 8), branches=nn.ModuleList([conv_bn(8, 4, 1), factored, pool, average])), (
        1,
        3,
        14,
        12,
    )


def densenet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        features = [net.stem(x)]
        for layer in net.layers:
            features.append(layer(torch.cat(features, 1)))
        return net.transition(torch.cat(features, 1))

    layers = nn.ModuleList(
        [
            nn.Sequential(nn.BatchNorm2d(6 + 4 * i), nn.ReLU(), nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False))
            for i in range(3)
        ]
    )
    transition = nn.Sequential(nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 9, 1, bias=False), nn.AvgPool2d(2, 2))
    return Net(forward, stem=nn.Conv2d(3, 6, 3, padding=1), layers=layers, transition=transition), (1, 3, 10, 9)


def hrnet() -> Made:
    """Two resolutions that exchange what they know (Sun et al., 2019)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        high = net.stem(x)
        low = net.down(high)
        mixed_high = F.relu(
            high + F.interpolate(net.up(low), size=high.shape[-2:], mode="bilinear", align_corners=True)
        )
        mixed_low = F.relu(low + net.cross(high))
        return net.head(torch.cat([mixed_high, F.interpolate(mixed_low, size=high.shape[-2:], mode="bilinear")], 1))

    downs = {"down": conv_bn(6, 8, stride=2), "cross": conv_bn(6, 8, stride=2, activation=nn.Identity())}
    return Net(
        forward, stem=conv_bn(3, 6), up=conv_bn(8, 6, 1, activation=nn.Identity()), head=nn.Conv2d(14, 4, 1), **downs
    ), (1, 3, 11, 13)


def aspp() -> Made:
    """DeepLab's pyramid of dilations, and PSPNet's of pools."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        size = x.shape[-2:]
        parts = [branch(x) for branch in net.branches]
        parts += [
            F.interpolate(F.adaptive_avg_pool2d(x, bins), size=size, mode="bilinear", align_corners=False)
            for bins in (1, 2, 3)
        ]
        return net.head(torch.cat(parts, 1)).argmax(1)

    branches = nn.ModuleList([conv_bn(6, 4, padding=rate, dilation=rate) for rate in (1, 2, 4)])
    return Net(forward, stem=conv_bn(3, 6, stride=2), branches=branches, head=nn.Conv2d(12 + 18, 5, 1)), (1, 3, 21, 18)


def repvgg() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        return F.relu(net.three(x) + net.one(x) + net.same(x))

    three, pointwise = (
        nn.Sequential(nn.Conv2d(6, 6, k, padding=k // 2, bias=False), nn.BatchNorm2d(6)) for k in (3, 1)
    )
    return Net(forward, three=three, one=pointwise, same=nn.BatchNorm2d(6)), (1, 6, 7, 9)


def octave_blur() -> Made:
    """Anti-aliased downsampling (Zhang, 2019): a fixed blur of a reflected border, applied to each channel."""

    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            row = torch.tensor([1.0, 2.0, 1.0])
            self.register_buffer("filter", (row[:, None] * row / 16).repeat(6, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(
                F.pad(x, (1, 1, 1, 1), mode="reflect"), self.get_buffer("filter"), stride=2, groups=x.shape[1]
            )

    return nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(2, 1), Blur()), (1, 3, 10, 9)


KINDS = (inception, densenet, hrnet, aspp, repvgg, octave_blur)
