"""Heads: retrieval, key points, boxes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def arcface() -> Made:
    """Cosines between features and classes."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.fc, self.weight = (
                conv_bn(3, 6, stride=2),
                nn.Linear(6, 8),
                nn.Parameter(torch.randn(5, 8)),
            )

        def forward(self, x: Tensor) -> Tensor:
            embedding = self.fc(self.features(x).mean((2, 3)))
            norm = torch.norm(embedding, 2, 1, True)
            return 30 * F.linear(embedding / norm, F.normalize(self.weight)).clamp(-1, 1)

    return Head(), (2, 3, 8, 9)


def siamese() -> Made:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (net.features(part).flatten(1) for part in x.split(1, 1))
        return F.cosine_similarity(first, second), F.pairwise_distance(first, second)

    return Net(forward, features=nn.Sequential(conv_bn(1, 4), nn.AdaptiveMaxPool2d(2))), (3, 2, 9, 8)


def soft_argmax() -> Made:
    """Key points as expected positions, from integer grids."""

    def forward(net: Any, x: Tensor) -> Tensor:
        heat = net.heat(x)
        n, c, h, w = heat.shape
        heat = heat.flatten(2).softmax(-1).view(n, c, h, w)
        return torch.stack([(heat.sum(2) * torch.arange(w)).sum(-1), (heat.sum(3) * torch.arange(h)).sum(-1)], -1)

    return Net(forward, heat=nn.Conv2d(3, 4, 3, padding=1)), (2, 3, 7, 9)


def keypoints() -> Made:
    """Positions of maxima, as whole numbers (Xiao et al., 2018)."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = net.heat(x).flatten(2)
        scores, places = torch.max(heat, 2, keepdim=True)
        points = torch.cat([places % 9, torch.div(places, 9, rounding_mode="floor")], 2).float()
        return points * (scores > 0).float(), scores

    return Net(forward, heat=nn.Conv2d(3, 4, 3, padding=1)), (2, 3, 7, 9)


def yolo() -> Made:
    """Boxes decoded from offsets, in place, and the best of them."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = net.head(net.stem(x))
        n, _, h, w = y.shape
        y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).float()
        anchors = torch.tensor([[10.0, 13.0], [16.0, 30.0]]).view(1, 2, 1, 1, 2)
        boxes = y.clone()
        boxes[..., 0:2] = (y[..., 0:2] * 2 - 0.5 + grid) * 8
        boxes[..., 2:4] = (y[..., 2:4] * 2) ** 2 * anchors
        boxes = boxes.view(n, -1, 7)
        scores = boxes[..., 4:5] * boxes[..., 5:]
        best, _ = scores.amax(-1).topk(4)
        return boxes, best

    return Net(forward, stem=conv_bn(3, 8, stride=2, activation=nn.SiLU()), head=nn.Conv2d(8, 14, 1)), (1, 3, 10, 12)


def ssd() -> Made:
    """Scaled features, boxes from priors, corners clipped."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.boxes, self.classes = (
                conv_bn(3, 8, stride=2),
                nn.Conv2d(8, 4, 3, padding=1),
                nn.Conv2d(8, 3, 3, padding=1),
            )
            self.scale = nn.Parameter(torch.full((8,), 2.0))
            self.register_buffer("priors", torch.rand(20, 4) + 0.1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x)
            x = x / x.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-6) * self.scale.view(1, -1, 1, 1)
            boxes = self.boxes(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)
            priors = self.get_buffer("priors")
            centres, sizes = (
                priors[:, :2] + boxes[..., :2] * 0.1 * priors[:, 2:],
                priors[:, 2:] * torch.exp(boxes[..., 2:] * 0.2),
            )
            corners = torch.cat([centres - sizes / 2, centres + sizes / 2], -1).clamp(0, 1)
            return corners, self.classes(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3).softmax(-1)

    return Head(), (1, 3, 8, 10)


def centernet() -> Made:
    """Peaks of a heat map by max pooling and a comparison, then the best, gathered."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = net.stem(x)
        heat, sizes = net.heat(x).sigmoid(), net.sizes(x)
        heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, places = heat.flatten(1).topk(5)
        places = places % (heat.shape[2] * heat.shape[3])
        chosen = sizes.flatten(2).permute(0, 2, 1).gather(1, places.unsqueeze(2).expand(-1, -1, 2))
        return scores, chosen

    return Net(forward, stem=conv_bn(3, 6), heat=nn.Conv2d(6, 2, 1), sizes=nn.Conv2d(6, 2, 1)), (1, 3, 8, 7)


KINDS = (arcface, siamese, soft_argmax, keypoints, yolo, ssd, centernet)
