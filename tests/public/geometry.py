"""Geometry, and the rest."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def spatial_transformer() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        theta = net.localise(x).view(-1, 2, 3) * 0.1 + torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        return net.body(F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False))

    localise = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.MaxPool2d(2, 2), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)
    )
    return Net(forward, localise=localise, body=conv_bn(1, 4)), (2, 1, 9, 11)


def optical_flow() -> Made:
    """Warping by a flow, and a cost volume of shifted products (Sun et al., 2018)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        first, second = net.features(x[:, :3]), net.features(x[:, 3:])
        h, w = first.shape[2:]
        costs = [
            (first * torch.roll(second, (dy, dx), (2, 3))).mean(1, keepdim=True)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        flow = net.flow(torch.cat(costs, 1))
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        grid = torch.stack([columns, rows], -1) + flow.permute(0, 2, 3, 1) * 0.1
        return F.grid_sample(second, grid, mode="bilinear", padding_mode="border", align_corners=True)

    return Net(forward, features=conv_bn(3, 4), flow=nn.Conv2d(9, 2, 3, padding=1)), (1, 6, 8, 9)


def involution() -> Made:
    """Kernels computed from the input, applied to unfolded windows (Li et al., 2021)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = net.span(net.reduce(x)).view(n, 2, 9, h, w).unsqueeze(2)
        windows = F.unfold(x, 3, padding=1).view(n, 2, c // 2, 9, h, w)
        return (weight * windows).sum(3).view(n, c, h, w)

    return Net(forward, reduce=conv_bn(8, 4, 1), span=nn.Conv2d(4, 18, 1)), (1, 8, 7, 6)


def masked() -> Made:
    """Masks, thresholds and choices between branches."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = x.masked_fill(x < 0.1, -1e4)
        y = torch.where(x > 0.5, x.flip(3), 2 ** x.clamp(max=3))
        return (
            F.threshold(y, 0.2, 0.0)
            + torch.log1p(y.abs())
            + torch.erf(y)
            - y.std((2, 3), keepdim=True)
            + y.cumsum(1)[:, :1]
        )

    return Net(forward, stem=conv_bn(3, 6)), (1, 3, 7, 9)


def mlp_mixer() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        x = x + net.tokens(net.norm(x).transpose(1, 2)).transpose(1, 2)
        return net.fc((x + net.channels(x)).mean(1))

    tokens, channels = (nn.Sequential(nn.Linear(n, 10), nn.GELU("tanh"), nn.Linear(10, n)) for n in (6, 8))
    return Net(
        forward,
        patches=nn.Conv2d(3, 8, 4, 4),
        norm=nn.LayerNorm(8),
        tokens=tokens,
        channels=channels,
        fc=nn.Linear(8, 3),
    ), (2, 3, 8, 12)


def vlad() -> Made:
    """NetVLAD: residuals to soft clusters, normalised twice (Arandjelovic et al., 2016)."""

    class Vlad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.assign, self.centres = (
                conv_bn(3, 6),
                nn.Conv2d(6, 4, 1),
                nn.Parameter(torch.randn(4, 6)),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = F.normalize(self.features(x), p=2, dim=1)
            soft = self.assign(x).flatten(2).softmax(1)
            flat = x.flatten(2)
            vlad = torch.zeros([x.shape[0], 4, 6], dtype=x.dtype)
            for k in range(4):
                residual = (flat - self.centres[k].view(1, 6, 1)) * soft[:, k].unsqueeze(1)
                vlad[:, k] = residual.sum(-1)
            return F.normalize(F.normalize(vlad, p=2, dim=2).flatten(1), p=2, dim=1)

    return Vlad(), (1, 3, 7, 5)


KINDS = (spatial_transformer, optical_flow, involution, masked, mlp_mixer, vlad)
