"""Decoders and generators."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def unet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        first = net.first(x)
        second = net.second(F.max_pool2d(first, 2))
        bottom = net.bottom(F.max_pool2d(second, 2))
        up = net.right_2(torch.cat([second, net.up_2(bottom)], 1))
        up = net.up_1(up)
        dy, dx = first.shape[2] - up.shape[2], first.shape[3] - up.shape[3]
        up = F.pad(up, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return net.out(net.right_1(torch.cat([first, up], 1)))

    parts = {
        "first": conv_bn(3, 4),
        "second": conv_bn(4, 8),
        "bottom": conv_bn(8, 16),
        "right_2": conv_bn(16, 8),
        "right_1": conv_bn(8, 4),
    }
    ups = {"up_2": nn.ConvTranspose2d(16, 8, 2, 2), "up_1": nn.ConvTranspose2d(8, 4, 2, 2)}
    return Net(forward, out=nn.Conv2d(4, 2, 1), **parts, **ups), (1, 3, 12, 17)


def dcgan() -> Made:
    layers: list[nn.Module] = [nn.ConvTranspose2d(10, 16, 4, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()), (2, 10, 1, 1)


def style_transfer() -> Made:
    """Reflection padding, instance norm, residual blocks, upsampling (Johnson et al., 2016)."""

    def block(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.ReflectionPad2d(kernel // 2),
            nn.Conv2d(c_in, c_out, kernel, stride),
            nn.InstanceNorm2d(c_out, affine=True),
            nn.ReLU(),
        )

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.down(net.first(x))
        x = x + net.residual(x)
        return net.last(F.interpolate(x, scale_factor=2, mode="nearest"))

    last = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(8, 3, 9))
    return Net(forward, first=block(3, 6, 9), down=block(6, 8, 3, 2), residual=block(8, 8, 3), last=last), (
        1,
        3,
        14,
        11,
    )


def super_resolution() -> Made:
    layers = [
        nn.Conv2d(1, 8, 5, padding=2),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate"),
        nn.PReLU(),
    ]
    return nn.Sequential(*layers, nn.Conv2d(8, 9, 3, padding=1), nn.PixelShuffle(3)), (1, 1, 9, 7)


def bicubic_residual() -> Made:
    """VDSR: what bicubic interpolation lacks."""

    def forward(net: Any, x: Tensor) -> Tensor:
        up = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return up + net.body(up)

    return Net(forward, body=nn.Sequential(conv_bn(1, 8), nn.Conv2d(8, 1, 3, padding=1))), (1, 1, 9, 7)


KINDS = (unet, dcgan, style_transfer, super_resolution, bicubic_residual)
