"""What stands inside residual networks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def eca() -> Made:
    """Channel attention by a 1-d convolution over channels (Wang et al., 2020)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.conv(net.pool(x).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * y.sigmoid().expand_as(x)

    return Net(
        forward, stem=conv_bn(3, 9), pool=nn.AdaptiveAvgPool2d(1), conv=nn.Conv1d(1, 1, 3, padding=1, bias=False)
    ), (2, 3, 7, 9)


def temporal_shift() -> Made:
    """TSM: channels move between frames, in place (Lin et al., 2019)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        frames = x.view(-1, 4, *x.shape[1:])
        out = torch.zeros_like(frames)
        out[:, :-1, :2] = frames[:, 1:, :2]
        out[:, 1:, 2:4] = frames[:, :-1, 2:4]
        out[:, :, 4:] = frames[:, :, 4:]
        return net.conv(out.view_as(x)).view(-1, 4, 8, 7, 5).mean(1)

    return Net(forward, stem=conv_bn(3, 8), conv=conv_bn(8, 8)), (4, 3, 7, 5)


def convnext() -> Made:
    class Block(nn.Module):
        """Depthwise, then channels last: layer norm, two linear layers, a learnt scale (Liu et al., 2022)."""

        def __init__(self) -> None:
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8, eps=1e-6)
            self.expand, self.reduce, self.gamma = (
                nn.Linear(8, 32),
                nn.Linear(32, 8),
                nn.Parameter(torch.full((8,), 0.5)),
            )

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            return x + (self.gamma * self.reduce(F.gelu(self.expand(y)))).permute(0, 3, 1, 2)

    class ChannelNorm(nn.Module):
        """Layer norm over the channels, channels first."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean(1, keepdim=True)
            var = (x - mean).pow(2).mean(1, keepdim=True)
            return (x - mean) / torch.sqrt(var + 1e-6)

    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        ChannelNorm(),
        Block(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(8),
        nn.Linear(8, 5),
    ), (2, 3, 28, 20)


def group_norm_resnet() -> Made:
    """Group norm and standardised weights (Kolesnikov et al., 2020)."""

    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            var, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
            return F.conv2d(
                input,
                (self.weight - mean) / torch.sqrt(var + 1e-10),
                self.bias,
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
            )

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.head(x + net.block(x))

    block = nn.Sequential(
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        Standardised(8, 8, 3, padding=1),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        Standardised(8, 8, 3, padding=1),
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return Net(forward, stem=Standardised(3, 8, 3, padding=1), block=block, head=head), (2, 3, 9, 7)


def cbam() -> Made:
    """Channel and spatial attention (Woo et al., 2018)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = (
            x
            * torch.sigmoid(
                net.mlp(F.avg_pool2d(x, x.shape[2:]).flatten(1)) + net.mlp(F.max_pool2d(x, x.shape[2:]).flatten(1))
            )[:, :, None, None]
        )
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(net.spatial(pooled))

    mlp = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8))
    return Net(forward, stem=conv_bn(3, 8), mlp=mlp, spatial=nn.Conv2d(2, 1, 7, padding=3, bias=False)), (2, 3, 9, 7)


def senet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return F.relu(x * net.gate(x.mean((2, 3))).view(*x.shape[:2], 1, 1) + x)

    return Net(
        forward, stem=conv_bn(3, 8), gate=nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())
    ), (2, 3, 7, 9)


def shufflenet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        kept, worked = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([kept, net.branch(worked)], 1), 2)

    return Net(
        forward,
        stem=conv_bn(3, 8),
        branch=nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, groups=4, activation=nn.Identity())),
    ), (2, 3, 7, 9)


def efficientnet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.depthwise(net.expand(x))
        return x + net.project(y * net.gate(y))

    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 3, 1), nn.SiLU(), nn.Conv2d(3, 12, 1), nn.Sigmoid())
    parts = {"stem": conv_bn(3, 6, stride=2, activation=nn.SiLU()), "expand": conv_bn(6, 12, 1, activation=nn.SiLU())}
    depthwise, project = (
        conv_bn(12, 12, 5, groups=12, activation=nn.SiLU()),
        conv_bn(12, 6, 1, activation=nn.Identity()),
    )
    return Net(forward, depthwise=depthwise, gate=gate, project=project, **parts), (2, 3, 14, 13)


KINDS = (eca, temporal_shift, convnext, group_norm_resnet, cbam, senet, shufflenet, efficientnet)
