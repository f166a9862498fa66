"""Attention and other products of activations."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def mobile_vit() -> Made:
    """A MobileViT block: unfold into patches, transformer, fold, fuse (Mehta and Rastegari, 2022)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.reduce(net.local(x))
        n, c, h, w = y.shape
        patches = (
            y.reshape(n * c, h // 2, 2, w // 2, 2)
            .transpose(2, 3)
            .reshape(n, c, h * w // 4, 4)
            .transpose(1, 3)
            .reshape(n * 4, h * w // 4, c)
        )
        patches = net.norm(net.transformer(patches))
        y = (
            patches.reshape(n, 4, h * w // 4, c)
            .transpose(1, 3)
            .reshape(n * c, h // 2, w // 2, 2, 2)
            .transpose(2, 3)
            .reshape(n, c, h, w)
        )
        return net.fuse(torch.cat([x, net.project(y)], 1))

    transformer = nn.TransformerEncoderLayer(
        12, 3, 24, dropout=0.0, activation=F.silu, batch_first=True, norm_first=True
    )
    parts = {
        "local": conv_bn(8, 8),
        "reduce": nn.Conv2d(8, 12, 1),
        "project": conv_bn(12, 8, 1),
        "fuse": conv_bn(16, 8, activation=nn.SiLU()),
    }
    return Net(forward, transformer=transformer, norm=nn.LayerNorm(12), **parts), (2, 8, 8, 6)


def non_local() -> Made:
    """Non-local block, embedded Gaussian (Wang et al., 2018)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        theta, phi, g = (part(x).flatten(2) for part in (net.theta, net.phi, net.g))
        attention = torch.matmul(theta.transpose(1, 2), phi).softmax(-1)
        y = torch.matmul(attention, g.transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        return x + net.out(y)

    parts = {name: nn.Conv2d(8, 4, 1) for name in ("theta", "phi", "g")}
    return Net(forward, out=nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)), **parts), (2, 8, 7, 5)


def bilinear_cnn() -> Made:
    """Bilinear pooling: outer products of features, signed square root, normalisation (Lin et al., 2015)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        features = net.features(x).flatten(2)
        product = torch.bmm(features, features.transpose(1, 2)) / features.shape[2]
        flat = product.flatten(1)
        return net.fc(F.normalize(torch.sign(flat) * torch.sqrt(flat.abs() + 1e-5)))

    return Net(forward, features=conv_bn(3, 6), fc=nn.Linear(36, 5)), (2, 3, 9, 7)


def botnet() -> Made:
    """Attention with relative positions by einsum (Srinivas et al., 2021)."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Conv2d(8, 24, 1, bias=False)
            self.height, self.width = nn.Parameter(torch.randn(2, 4, 5, 1)), nn.Parameter(torch.randn(2, 4, 1, 6))

        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            q, k, v = self.qkv(x).reshape(n, 3, 2, 4, h * w).unbind(1)
            scores = torch.einsum("nhdi,nhdj->nhij", q * 0.5, k)
            scores = scores + torch.einsum("nhdi,hdj->nhij", q, (self.height + self.width).flatten(2))
            return torch.einsum("nhij,nhdj->nhdi", scores.softmax(-1), v).reshape(n, c, h, w)

    return nn.Sequential(conv_bn(3, 8), Attention(), nn.BatchNorm2d(8), nn.ReLU()), (1, 3, 5, 6)


def vit_head() -> Made:
    """Class token, learnt positions, multi-head attention that returns its weights."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 12, 4, 4)
            self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 12)), nn.Parameter(torch.zeros(1, 7, 12))
            self.attention, self.norm, self.fc = (
                nn.MultiheadAttention(12, 2, batch_first=True),
                nn.LayerNorm(12),
                nn.Linear(12, 5),
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
            y, weights = self.attention(x, x, x)
            return self.fc(self.norm(x + y)[:, 0]), weights

    return Head(), (2, 3, 8, 12)


KINDS = (mobile_vit, non_local, bilinear_cnn, botnet, vit_head)
