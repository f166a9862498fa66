"""Networks that take numbers of words, places or classes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def clip_text() -> Made:
    """CLIP's text encoder: a causal transformer, read at the end of the text, which has the largest number (Radford et
    al., 2021)."""

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(40, 12), nn.Parameter(torch.randn(9, 12) * 0.1)
            quick_gelu = lambda x: x * torch.sigmoid(1.702 * x)  # noqa: E731
            self.block = nn.TransformerEncoderLayer(
                12, 3, 24, dropout=0.0, activation=quick_gelu, batch_first=True, norm_first=True
            )
            self.norm, self.project = nn.LayerNorm(12), nn.Parameter(torch.randn(12, 8))

        def forward(self, text: Tensor) -> Tensor:
            x = self.words(text) + self.places
            x = self.norm(self.block(x, src_mask=torch.full((9, 9), float("-inf")).triu(1)))
            x = x[torch.arange(x.shape[0]), text.argmax(dim=-1)] @ self.project
            return x / x.norm(dim=-1, keepdim=True)

    return Text(), (torch.randint(0, 40, (2, 9)),)


def bert() -> Made:
    """Ids, kinds of segments, and a mask of what is padding."""

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.kinds, self.places = (
                nn.Embedding(30, 12, padding_idx=0),
                nn.Embedding(2, 12),
                nn.Embedding(16, 12),
            )
            self.qkv, self.out, self.norm, self.fc = (
                nn.Linear(12, 36),
                nn.Linear(12, 12),
                nn.LayerNorm(12, eps=1e-12),
                nn.Linear(12, 3),
            )

        def forward(self, ids: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
            n, t = ids.shape
            x = self.norm(self.words(ids) + self.kinds(kinds) + self.places(torch.arange(t)))
            q, k, v = (part.view(n, t, 2, 6).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            scores = q @ k.transpose(-1, -2) / 6**0.5 + (1.0 - mask[:, None, None].float()) * -10000.0
            x = self.norm(x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, 12)))
            return self.fc(torch.tanh(x[:, 0]))

    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    return Bert(), (torch.randint(1, 30, (2, 7)), torch.randint(0, 2, (2, 7)), mask)


def rotary() -> Made:
    """Attention with rotary positions that come in (Su et al., 2021)."""

    def forward(net: Any, x: Tensor, positions: Tensor) -> Tensor:
        angles = positions[..., None].float() * (100 ** (-torch.arange(4) / 4))
        cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
        q, k, v = net.qkv(x).chunk(3, -1)
        q, k = (y * cos + torch.cat([-y[..., 4:], y[..., :4]], -1) * sin for y in (q, k))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return Net(forward, qkv=nn.Linear(8, 24)), (torch.randn(2, 6, 8), torch.arange(6, dtype=torch.int32).repeat(2, 1))


def detr() -> Made:
    """Sine positions from a mask, learnt queries, classes and boxes (Carion et al., 2020)."""

    class Detr(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.reduce = conv_bn(3, 8, stride=2), nn.Conv2d(8, 12, 1)
            self.transformer = nn.Transformer(12, 3, 1, 1, 24, dropout=0.0, batch_first=True)
            self.queries, self.classes, self.boxes = (
                nn.Embedding(5, 12),
                nn.Linear(12, 4),
                nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)),
            )

        def positions(self, mask: Tensor) -> Tensor:
            found = []
            for axis in (1, 2):
                counted = mask.cumsum(axis, dtype=torch.float32)
                counted = counted / ((counted[:, -1:] if axis == 1 else counted[:, :, -1:]) + 1e-6) * 6.28
                turned = counted[..., None] / 20 ** (2 * (torch.arange(6) // 2) / 6)
                found.append(torch.stack((turned[..., 0::2].sin(), turned[..., 1::2].cos()), 4).flatten(3))
            return torch.cat(found, 3)

        def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            x = self.reduce(self.body(image))
            small = F.interpolate(mask[None].float(), size=x.shape[-2:]).to(torch.bool)[0]
            x = x.flatten(2).transpose(1, 2) + self.positions(small).flatten(1, 2)
            hidden = ~small.flatten(1)
            x = self.transformer(
                x,
                self.queries.weight.expand(x.shape[0], -1, -1),
                src_key_padding_mask=hidden,
                memory_key_padding_mask=hidden,
            )
            return self.classes(x), self.boxes(x).sigmoid()

    mask = torch.ones(1, 10, 12, dtype=torch.bool)
    mask[:, 8:, :] = False
    return Detr(), (torch.randn(1, 3, 10, 12), mask)


def greedy_text() -> Made:
    """Text recognition by attention: each letter found is the next step's input."""

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.letters, self.cell = conv_bn(1, 8), nn.Embedding(6, 4), nn.GRUCell(12, 8)
            self.score, self.out = nn.Linear(8, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            places = self.features(x).flatten(2).transpose(1, 2)
            state, letter, found, all_scores = places.mean(1), torch.zeros(x.shape[0], dtype=torch.int64), [], []
            for _ in range(3):
                weights = (places @ self.score(state)[..., None]).softmax(1)
                state = self.cell(torch.cat([(weights * places).sum(1), self.letters(letter)], -1), state)
                scores = self.out(state)
                letter = scores.argmax(-1)
                found.append(letter)
                all_scores.append(scores)
            return torch.stack(found, 1), torch.stack(all_scores, 1)

    return Decoder(), (2, 1, 5, 6)


def pillars() -> Made:
    """PointPillars: features of columns are put where these lie in the plane (Lang et al., 2019)."""

    def forward(net: Any, points: Tensor, places: Tensor) -> Tensor:
        features = net.points(points.transpose(1, 2)).amax(2)
        canvas = torch.zeros(6, 5 * 7)
        canvas[:, places[:, 0] * 7 + places[:, 1]] = features.t()
        return net.body(canvas.view(1, 6, 5, 7))

    points = nn.Sequential(nn.Conv1d(4, 6, 1, bias=False), nn.BatchNorm1d(6), nn.ReLU())
    places = torch.stack([torch.randperm(5)[:4], torch.randperm(7)[:4]], 1)
    return Net(forward, points=points, body=conv_bn(6, 4)), (torch.randn(4, 9, 4), places)


def camera() -> Made:
    """Bytes as a camera gives them, channels last."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.body((x.permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.22)

    return Net(forward, body=conv_bn(3, 8)), (torch.randint(0, 256, (1, 9, 7, 3), dtype=torch.uint8),)


KINDS = (clip_text, bert, rotary, detr, greedy_text, pillars, camera)
