"""Small networks that have, one each, what graphs are made of, with batch-norm statistics and weights that are not
trivial."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def settle(module: nn.Module, seed: int = 0) -> nn.Module:
    """Evaluation mode, batch-norm statistics away from 0 and 1, everything reproducible."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_floating_point():
            fan_in = max(1, value[0].numel()) if value.dim() > 1 else 1
            drawn = torch.randn(value.shape, generator=generator) / fan_in**0.5
            value.data.copy_(drawn.abs() + 0.5 if "var" in name else drawn)
    return module.eval()


def conv_bn(
    c_in: int, c_out: int, kernel: int = 3, activation: nn.Module | None = None, **options: Any
) -> nn.Sequential:
    layers = [
        nn.Conv2d(c_in, c_out, kernel, padding=options.pop("padding", kernel // 2), bias=False, **options),
        nn.BatchNorm2d(c_out),
    ]
    return nn.Sequential(*layers, activation or nn.ReLU())


class Residual(nn.Module):
    """Two residual blocks, the second with a projection and stride 2, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.first = conv_bn(8, 8)
        self.second = nn.Sequential(conv_bn(8, 16, stride=2), nn.Conv2d(16, 16, 3, padding=1))
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.fc = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = F.relu(x + self.first(x))
        x = torch.relu_(self.second(x) + self.shortcut(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Concat(nn.Module):
    """Branches of different kernels, also dilated, joined along channels."""

    def __init__(self) -> None:
        super().__init__()
        self.single = conv_bn(3, 4, 1)
        self.three = conv_bn(3, 5, 3)
        self.dilated = conv_bn(3, 3, 3, dilation=2, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.single(x), self.three(x), self.dilated(x), self.pool(x)], dim=-3)


class SqueezeExcite(nn.Module):
    """Depthwise convolution and a gate computed from the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = conv_bn(6, 6, 5, nn.Hardswish(), groups=6)
        self.reduce, self.expand = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        gate = F.hardsigmoid(self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * gate


class Shuffle(nn.Module):
    """ShuffleNet's unit: split, grouped convolution, concat, channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = conv_bn(4, 4, 3, nn.ReLU6(), groups=2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Decoder(nn.Module):
    """Downsampling with uneven padding, upsampling both ways, two outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2)
        self.same = nn.Conv2d(6, 6, 4, padding="same")
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor, skip: Tensor) -> dict[str, Tensor]:
        x = F.leaky_relu(self.down(F.pad(x, (0, 1, 0, 1))), 0.1)
        x = self.drop(self.same(x))
        up = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        fused = torch.cat([F.interpolate(up, size=skip.shape[-2:], mode="nearest"), skip], 1)
        return {"mask": fused.sigmoid(), "scores": F.log_softmax(x.mean((2, 3)), dim=-1)}


class Two(nn.Module):
    """Two inputs and two outputs, one of them early; a residual, a concat, pooling to 2x2; linear layers behind large
    planes, the first with a residual."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.stem, self.block = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.hidden, self.fc = nn.Linear(16 * 4 + 5, 40), nn.Linear(40, 7)
        self.beside = nn.Linear(5, 40)

    def forward(self, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(image).relu()
        x = torch.cat([x, x + self.block(x)], 1)
        pooled = F.max_pool2d(x, self.pool)
        hidden = self.hidden(torch.cat([pooled.flatten(1), numbers], 1)) + self.beside(numbers)
        return pooled, self.fc(hidden.relu())


NETS: dict[str, tuple[type[nn.Module], tuple[tuple[int, ...], ...]]] = {
    "residual": (Residual, ((2, 3, 13, 10),)),
    "concat": (Concat, ((1, 3, 7, 9),)),
    "squeeze_excite": (SqueezeExcite, ((1, 6, 7, 13),)),
    "shuffle": (Shuffle, ((3, 8, 5, 1),)),
    "decoder": (Decoder, ((1, 3, 16, 13), (1, 2, 19, 11))),
}
"""Name: class, input shapes."""


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """One of the networks, and inputs for it."""
    cls, shapes = NETS[name]
    torch.manual_seed(1)
    return settle(cls()), tuple(torch.randn(shape) for shape in shapes)
