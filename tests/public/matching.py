"""Key points, flow, points in space, and boxes that are suppressed."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcc.ir.ops  # noqa: F401  # pyright: ignore[reportUnusedImport]  # torch.ops.pcc.nms
from tests.nets import conv_bn
from tests.public.net import Made, Net


def superpoint() -> Made:
    """Cells of 8 x 8 and a bin for none, maxima of the heat map, descriptors sampled there (DeTone et al., 2018)."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = net.body(x)
        scores = net.points(x).softmax(1)[:, :-1].permute(0, 2, 3, 1)
        n, h, w, _ = scores.shape
        heat = scores.reshape(n, h, w, 8, 8).permute(0, 1, 3, 2, 4).reshape(n, h * 8, w * 8)
        heat = torch.where(heat == F.max_pool2d(heat[:, None], 5, 1, 2)[:, 0], heat, torch.zeros_like(heat))
        best, places = heat.flatten(1).topk(6)
        points = torch.stack([places % (w * 8), torch.div(places, w * 8, rounding_mode="floor")], -1).float()
        grid = points / torch.tensor([w * 8 - 1.0, h * 8 - 1.0]) * 2 - 1
        descriptors = F.grid_sample(F.normalize(net.descriptors(x), dim=1), grid[:, None], align_corners=True)[:, :, 0]
        return points, best, F.normalize(descriptors, dim=1)

    body = nn.Sequential(conv_bn(1, 4, stride=2), conv_bn(4, 6, stride=2), conv_bn(6, 8, stride=2))
    return Net(forward, body=body, points=nn.Conv2d(8, 65, 1), descriptors=nn.Conv2d(8, 12, 1)), (1, 1, 24, 32)


def raft() -> Made:
    """All pairs of features, looked up around the flow that a convolutional GRU refines, and convex upsampling (Teed
    and Deng, 2020)."""

    def sampled(volume: Tensor, points: Tensor) -> Tensor:
        h, w = volume.shape[-2:]
        return F.grid_sample(volume, 2 * points / torch.tensor([w - 1.0, h - 1.0]) - 1, align_corners=True)

    def forward(net: Any, first: Tensor, second: Tensor) -> Tensor:
        a, b = net.features(first), net.features(second)
        n, c, h, w = a.shape
        volume = (a.flatten(2).transpose(1, 2) @ b.flatten(2) / c**0.5).reshape(n * h * w, 1, h, w)
        pyramid = [volume, F.avg_pool2d(volume, 2, stride=2)]
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        start = torch.stack([columns, rows]).float()[None]
        steps = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 3), indexing="ij"), -1)
        flow, state = torch.zeros(n, 2, h, w), torch.tanh(a)
        for _ in range(2):
            centre = (start + flow).permute(0, 2, 3, 1).reshape(n * h * w, 1, 1, 2)
            looked = [
                sampled(level, centre / 2**scale + steps).view(n, h, w, -1) for scale, level in enumerate(pyramid)
            ]
            x = torch.cat([torch.cat(looked, -1).permute(0, 3, 1, 2), flow], 1)
            z, r = torch.sigmoid(net.gates(torch.cat([state, x], 1))).chunk(2, 1)
            state = (1 - z) * state + z * torch.tanh(net.candidate(torch.cat([r * state, x], 1)))
            flow = flow + net.flow(state)
        mask = net.mask(state).view(n, 1, 9, 2, 2, h, w).softmax(2)
        up = (mask * F.unfold(2 * flow, 3, padding=1).view(n, 2, 9, 1, 1, h, w)).sum(2)
        return up.permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 2 * h, 2 * w)

    parts = {
        "features": conv_bn(3, 6, stride=2),
        "gates": nn.Conv2d(26, 12, 3, padding=1),
        "candidate": nn.Conv2d(26, 6, 3, padding=1),
    }
    return Net(forward, flow=nn.Conv2d(6, 2, 3, padding=1), mask=nn.Conv2d(6, 36, 1), **parts), (
        torch.randn(1, 3, 12, 10),
        torch.randn(1, 3, 12, 10),
    )


def pointnet() -> Made:
    """Points turned by a matrix that is computed of them, maxima over all (Qi et al., 2017)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        turn = net.turn(net.first(x).amax(2)).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(2, 1), turn).transpose(2, 1)
        return F.log_softmax(net.head(torch.max(net.second(x), 2)[0]), dim=1)

    def layer(c_in: int, c_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(c_in, c_out, 1), nn.BatchNorm1d(c_out), nn.ReLU())

    return Net(forward, first=layer(3, 8), second=layer(3, 12), turn=nn.Linear(8, 9), head=nn.Linear(12, 4)), (2, 3, 20)


def swin() -> Made:
    """Shifted windows, their mask and a table of relative positions (Liu et al., 2021)."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.out, self.table = (
                nn.LayerNorm(8),
                nn.Linear(8, 24),
                nn.Linear(8, 8),
                nn.Parameter(torch.randn(9, 2)),
            )

        def forward(self, x: Tensor) -> Tensor:
            n, h, w, c = x.shape
            y = (
                torch.roll(self.norm(x), (-1, -1), (1, 2))
                .view(n, h // 2, 2, w // 2, 2, c)
                .permute(0, 1, 3, 2, 4, 5)
                .reshape(-1, 4, c)
            )
            q, k, v = self.qkv(y).reshape(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
            places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
            apart = (places[:, :, None] - places[:, None] + 1).permute(1, 2, 0)
            bias = self.table[(apart[..., 0] * 3 + apart[..., 1]).flatten()].view(4, 4, 2).permute(2, 0, 1)
            mask = torch.zeros(h, w)
            mask[-1:], mask[:, -1:] = 1, 2
            mask = mask.view(h // 2, 2, w // 2, 2).permute(0, 2, 1, 3).reshape(-1, 4)
            apart = (mask[:, None] - mask[:, :, None] != 0).float() * -100.0
            scores = (q * 0.5 @ k.transpose(-2, -1) + bias).view(n, -1, 2, 4, 4) + apart[None, :, None]
            y = self.out((scores.view(-1, 2, 4, 4).softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
            y = y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
            return x + torch.roll(y, (1, 1), (1, 2))

    class Swin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.block, self.reduce = nn.Conv2d(3, 8, 2, 2), Block(), nn.Linear(32, 16, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.block(self.patches(x).permute(0, 2, 3, 1))
            return self.reduce(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))

    return Swin(), (2, 3, 8, 12)


def suppressed() -> Made:
    """A detector that ends in non-maximum suppression of a fixed number of boxes."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = net.head(net.body(x)).flatten(2)
        centres, sizes = found[:, :2].sigmoid() * 20, found[:, 2:4].exp() * 4
        boxes, scores = torch.cat([centres - sizes / 2, centres + sizes / 2], 1), found[:, 4:].sigmoid()
        places = torch.ops.pcc.nms(boxes, scores, 6, 0.4, 0.3)
        taken = places.clamp(min=0).long().flatten(1)
        return places, boxes.gather(2, taken[:, None].expand(-1, 4, -1)), scores.gather(2, places.clamp(min=0).long())

    return Net(forward, body=conv_bn(3, 8), head=nn.Conv2d(8, 7, 1)), (2, 3, 6, 7)


KINDS = (superpoint, raft, pointnet, swin, suppressed)
