"""Weights, exponents and places that are computed when the network runs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def conditional_convolution() -> Made:
    """CondConv: each image has a mixture of experts as its weight (Yang et al., 2019)."""

    class Conditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts, self.route = nn.Parameter(torch.randn(3, 6 * 4 * 9)), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            weight = torch.sigmoid(self.route(x.mean((2, 3)))) @ self.experts
            return F.conv2d(x.reshape(1, n * c, h, w), weight.view(n * 6, 4, 3, 3), None, 2, 1, groups=n).view(
                n, 6, -1, (w + 1) // 2
            )

    return nn.Sequential(conv_bn(3, 4), Conditional(), nn.BatchNorm2d(6), nn.ReLU()), (2, 3, 9, 7)


def modulated() -> Made:
    """StyleGAN2: the weight is scaled by a style and normalised again, upsampled by a transposed convolution (Karras et
    al., 2020)."""

    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.style = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Linear(5, 4)

        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            n, c, h, w = x.shape
            weight = self.weight[None] * (self.style(style) + 1).view(n, 1, c, 1, 1)
            weight = weight * torch.rsqrt(weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
            up = F.conv_transpose2d(
                x.view(1, n * c, h, w), weight.transpose(1, 2).reshape(n * c, 6, 3, 3), stride=2, groups=n
            )
            return F.leaky_relu(up.view(n, 6, *up.shape[2:]), 0.2) * 2**0.5

    return Modulated(), (torch.randn(2, 4, 5, 4), torch.randn(2, 5))


def tracker() -> Made:
    """SiamRPN++: features of a template slide over those of an image, channel by channel (Li et al., 2019)."""

    def forward(net: Any, template: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        kernel, x = net.features(template)[:, :, 1:-1, 1:-1], net.features(image)
        n, c = x.shape[:2]
        found = F.conv2d(x.view(1, n * c, *x.shape[2:]), kernel.reshape(n * c, 1, *kernel.shape[2:]), groups=n * c)
        found = net.head(found.view(n, c, *found.shape[2:]))
        return found[:, :2].softmax(1), found[:, 2:]

    return Net(forward, features=conv_bn(3, 6), head=nn.Conv2d(6, 6, 1)), (
        torch.randn(2, 3, 6, 6),
        torch.randn(2, 3, 11, 9),
    )


def segnet() -> Made:
    """Maxima go back to where they were found (Badrinarayanan et al., 2017)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        first = net.first(x)
        pooled, places = F.max_pool2d(first, 2, return_indices=True)
        deep, deeper = F.max_pool2d(net.second(pooled), 2, return_indices=True)
        up = F.max_unpool2d(deep, deeper, [2, 2], output_size=pooled.shape[2:])
        return net.last(F.max_unpool2d(net.third(up), places, [2, 2], output_size=first.shape[2:]))

    parts = {
        "first": conv_bn(3, 4),
        "second": conv_bn(4, 6),
        "third": conv_bn(6, 4),
        "last": nn.Conv2d(4, 2, 3, padding=1),
    }
    return Net(forward, **parts), (2, 3, 11, 12)


def gem() -> Made:
    """Generalised mean pooling whose exponent was learnt (Radenovic et al., 2018)."""

    class Gem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.ones(1) * 2.7)

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), x.shape[2:]).pow(1.0 / self.p).flatten(1))

    return nn.Sequential(conv_bn(3, 8), Gem(), nn.Linear(8, 4)), (2, 3, 7, 9)


def siren() -> Made:
    """Sines as activations, of coordinates in Fourier features (Sitzmann et al., 2020; Tancik et al., 2020)."""

    def forward(net: Any, points: Tensor) -> Tensor:
        turned = points[..., None, :] * (2.0 ** torch.arange(6))[:, None] * torch.pi
        x = torch.cat([turned.sin(), turned.cos()], -1).flatten(-2)
        return net.out(torch.sin(30 * net.first(x)))

    return Net(forward, first=nn.Linear(24, 16), out=nn.Linear(16, 3)), (torch.rand(50, 2),)


def normalised_weights() -> Made:
    """Weight and spectral normalisation, which are known when compiling."""
    first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
    second = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 4, 3))
    return nn.Sequential(
        first, nn.LeakyReLU(0.2), second, nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 4, 2, 1))
    ), (1, 3, 8, 7)


KINDS = (conditional_convolution, modulated, tracker, segnet, gem, siren, normalised_weights)
