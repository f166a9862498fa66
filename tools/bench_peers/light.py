"""Light networks as phones run them: what they have in common with published ones is their layers and sizes, which is
what speed depends on. Each gives one tensor; detectors give what they say of every place, side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(
    channels: int,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    *act: nn.Module,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Module:
    """Convolution that keeps the size (for stride 1), batch norm, activation."""
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(channels, filters, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(filters), *act)


def depthwise(channels: int, kernel: int, stride: int = 1, *act: nn.Module) -> nn.Module:
    return conv(channels, channels, kernel, stride, *act, groups=channels)


# ---- ShuffleNetV2 with 5x5 depthwise heads ----


class ShuffleUnit(nn.Module):
    """Ma et al., "ShuffleNet V2" (2018): half of the channels pass by, then both halves are shuffled."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, filters // 2
        inputs = channels if stride == 2 else half
        self.branch = nn.Sequential(
            conv(inputs, half, 1, 1, nn.ReLU()), depthwise(half, 3, stride), conv(half, half, 1, 1, nn.ReLU())
        )
        if stride == 2:
            self.shortcut = nn.Sequential(depthwise(channels, 3, 2), conv(channels, half, 1, 1, nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        passed, taken = (self.shortcut(x), x) if self.stride == 2 else x.chunk(2, 1)
        y = torch.cat([passed, self.branch(taken)], 1)
        count, channels, height, width = y.shape
        return y.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)


class ShuffleDetector(nn.Module):
    """Three scales of ShuffleNetV2, a pyramid, and heads of 5x5 depthwise convolutions, as in NanoDet."""

    WIDTH, OUTPUTS = 96, 112

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 24, 3, 2, nn.ReLU()), nn.MaxPool2d(3, 2, 1))
        widths, repeats = (24, 116, 232, 464), (4, 8, 4)
        self.stages = nn.ModuleList(
            nn.Sequential(ShuffleUnit(a, b, 2), *(ShuffleUnit(b, b, 1) for _ in range(repeat - 1)))
            for a, b, repeat in zip(widths, widths[1:], repeats, strict=False)
        )
        self.lateral = nn.ModuleList(conv(width, self.WIDTH) for width in widths[1:])
        self.heads = nn.ModuleList(
            nn.Sequential(
                *(
                    part
                    for _ in range(2)
                    for part in (
                        depthwise(self.WIDTH, 5, 1, nn.LeakyReLU(0.1)),
                        conv(self.WIDTH, self.WIDTH, 1, 1, nn.LeakyReLU(0.1)),
                    )
                ),
                nn.Conv2d(self.WIDTH, self.OUTPUTS, 1),
            )
            for _ in widths[1:]
        )

    def forward(self, x: Tensor) -> Tensor:
        x, scales = self.stem(x), []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            scales.append(lateral(x))
        for finer in (1, 0):
            scales[finer] = scales[finer] + F.interpolate(scales[finer + 1], scale_factor=2.0)
        return torch.cat([head(scale).flatten(2) for head, scale in zip(self.heads, scales, strict=True)], 2)


# ---- inverted bottlenecks ----


class SqueezeExcite(nn.Module):
    """Hu et al., "Squeeze-and-Excitation Networks" (2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """1x1 up, 3x3 depthwise, linear 1x1 down; a shortcut where the shapes are one."""

    def __init__(
        self, channels: int, filters: int, expansion: int, stride: int, act: Callable[[int], nn.Module], gate: bool
    ) -> None:
        super().__init__()
        width = channels * expansion
        self.body = nn.Sequential(
            conv(channels, width, 1, 1, act(width)),
            depthwise(width, 3, stride, act(width)),
            conv(width, filters),
            *([SqueezeExcite(filters)] if gate else []),
        )
        self.has_shortcut = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.has_shortcut else y


def bottlenecks(
    channels: int,
    stages: tuple[tuple[int, int, int, int], ...],
    act: Callable[[int], nn.Module],
    gated: bool = False,
) -> nn.Module:
    """Stages of (expansion, filters, blocks, stride of the first); the last block of each is ``gated``."""
    blocks: list[nn.Module] = []
    for expansion, filters, count, stride in stages:
        for place in range(count):
            gate = gated and place == count - 1
            blocks.append(Bottleneck(channels, filters, expansion, 1 if place else stride, act, gate))
            channels = filters
    return nn.Sequential(*blocks)


class FaceEmbedding(nn.Module):
    """A vector for a face: Chen et al., "MobileFaceNets" (2018). PReLU, and a global depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        stages = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
        self.body = nn.Sequential(
            conv(3, 64, 3, 2, nn.PReLU(64)),
            depthwise(64, 3, 1, nn.PReLU(64)),
            bottlenecks(64, stages, nn.PReLU),
            conv(128, 512, 1, 1, nn.PReLU(512)),
            nn.Conv2d(512, 512, 7, groups=512),
            nn.Conv2d(512, 128, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)


class AntiSpoofing(nn.Module):
    """Whether a face is a live one, from 80x80: narrow bottlenecks with PReLU, squeeze and excitation at the end of
    each stage, as in MiniFASNet."""

    def __init__(self) -> None:
        super().__init__()
        stages = ((3, 32, 4, 2), (6, 64, 1, 2), (3, 64, 6, 1), (6, 64, 1, 2), (3, 64, 2, 1))
        self.body = nn.Sequential(
            conv(3, 32, 3, 2, nn.PReLU(32)),
            depthwise(32, 3, 1, nn.PReLU(32)),
            bottlenecks(32, stages, nn.PReLU, gated=True),
            conv(64, 256, 1, 1, nn.PReLU(256)),
            nn.Conv2d(256, 256, 5, groups=256),
            nn.Flatten(),
            nn.Linear(256, 128),
            nn.Linear(128, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Landmarks(nn.Module):
    """98 points of a face: Guo et al., "PFLD: A Practical Facial Landmark Detector" (2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            conv(3, 64, 3, 2, nn.ReLU()), depthwise(64, 3, 1, nn.ReLU()), bottlenecks(64, ((2, 64, 5, 2),), _relu)
        )
        self.middle = bottlenecks(64, ((2, 128, 1, 2), (4, 128, 6, 1), (2, 16, 1, 1)), _relu)
        self.coarse = conv(16, 32, 3, 2, nn.ReLU())
        self.whole = nn.Sequential(nn.Conv2d(32, 128, 7), nn.ReLU())
        self.points = nn.Linear(16 + 32 + 128, 2 * 98)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.middle(self.fine(x))
        coarse = self.coarse(middle)
        return self.points(torch.cat([middle.mean((2, 3)), coarse.mean((2, 3)), self.whole(coarse).flatten(1)], 1))


def _relu(channels: int) -> nn.Module:
    return nn.ReLU()


# ---- dilated branches and CReLU ----


class CRelu(nn.Module):
    """Shang et al., "Understanding and Improving Convolutional Neural Networks via Concatenated Rectified Linear Units"
    (2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([x, -x], 1))


class Dilated(nn.Module):
    """Branches that look 1, 2, 3 and 5 places far, joined, beside a shortcut: Liu et al., "Receptive Field Block Net"
    (2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // 4
        self.branches = nn.ModuleList(
            nn.Sequential(
                conv(channels, part, 1, 1, nn.ReLU()),
                conv(part, part, 3, 1, nn.ReLU()),
                conv(part, part, 3, 1, dilation=dilation),
            )
            for dilation in (1, 2, 3, 5)
        )
        self.joined = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.joined(torch.cat([branch(x) for branch in self.branches], 1)))


class FaceDetector(nn.Module):
    """Faces at three scales: a stem that shrinks fast, with CReLU, as in FaceBoxes (Zhang et al., 2017), and dilated
    branches."""

    ANCHORS = (21, 1, 1)
    VALUES = 6
    """Of a box: four corners, face or not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, 24, 7, 4, CRelu()),
            nn.MaxPool2d(3, 2, 1),
            conv(48, 64, 5, 2, CRelu()),
            nn.MaxPool2d(3, 2, 1),
            *(Dilated(128) for _ in range(3)),
        )
        self.deeper = nn.ModuleList(
            nn.Sequential(conv(width, 128, 1, 1, nn.ReLU()), conv(128, 256, 3, 2, nn.ReLU())) for width in (128, 256)
        )
        self.heads = nn.ModuleList(
            nn.Conv2d(width, anchors * self.VALUES, 3, padding=1)
            for width, anchors in zip((128, 256, 256), self.ANCHORS, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        scales = [self.stem(x)]
        for deeper in self.deeper:
            scales.append(deeper(scales[-1]))
        found = [head(scale) for head, scale in zip(self.heads, scales, strict=True)]
        return torch.cat([y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, self.VALUES) for y in found], 1)


@dataclass(frozen=True)
class LightNetwork:
    """A network that only the comparison has."""

    summary: str
    factory: Callable[[], nn.Module]
    input_shape: tuple[int, int, int, int]


LIGHT: Mapping[str, LightNetwork] = {
    "shuffle-detector": LightNetwork(
        "ShuffleNetV2 with a pyramid and 5x5 depthwise heads", ShuffleDetector, (1, 3, 320, 320)
    ),
    "face-embedding": LightNetwork("inverted bottlenecks with PReLU", FaceEmbedding, (1, 3, 112, 112)),
    "anti-spoofing": LightNetwork(
        "narrow inverted bottlenecks with PReLU, squeeze and excitation", AntiSpoofing, (1, 3, 80, 80)
    ),
    "landmarks": LightNetwork("inverted bottlenecks, three scales into one layer", Landmarks, (1, 3, 112, 112)),
    "face-detector": LightNetwork("CReLU and dilated branches", FaceDetector, (1, 3, 480, 640)),
}
"""By name."""
