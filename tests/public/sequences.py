"""Sound, text in images, video."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn
from tests.public.net import Made, Net


def audio() -> Made:
    """Raw audio through 1-d convolutions (Dai et al., 2017)."""
    layers: list[nn.Module] = [nn.Conv1d(1, 8, 16, 4), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4)]
    layers += [
        nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.2),
        nn.AvgPool1d(2, ceil_mode=True),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4), nn.LogSoftmax(-1)), (
        2,
        1,
        201,
    )


def wavenet() -> Made:
    """Causal, dilated, gated, with skips."""

    def forward(net: Any, x: Tensor) -> Tensor:
        total: Any = 0
        for dilation, layer, skip in zip((1, 2, 4), net.layers, net.skips, strict=True):
            filtered, gate = layer(F.pad(x, (dilation, 0))).chunk(2, 1)
            z = torch.tanh(filtered) * torch.sigmoid(gate)
            total = total + skip(z)
            x = x + z
        return net.out(F.relu(total))

    layers = nn.ModuleList([nn.Conv1d(4, 8, 2, dilation=dilation) for dilation in (1, 2, 4)])
    return Net(
        forward, layers=layers, skips=nn.ModuleList([nn.Conv1d(4, 6, 1) for _ in range(3)]), out=nn.Conv1d(6, 4, 1)
    ), (1, 4, 21)


def crnn() -> Made:
    """Text recognition: columns of a feature map through a bidirectional LSTM (Shi et al., 2015)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.features(x)
        x = x.squeeze(2).permute(2, 0, 1)
        x, _ = net.rnn(x)
        return F.log_softmax(net.fc(x), 2)

    features = nn.Sequential(
        conv_bn(1, 8), nn.MaxPool2d(2), conv_bn(8, 12), nn.MaxPool2d((2, 1)), nn.Conv2d(12, 12, (2, 1)), nn.ReLU()
    )
    return Net(forward, features=features, rnn=nn.LSTM(12, 6, 2, bidirectional=True), fc=nn.Linear(12, 7)), (
        1,
        1,
        8,
        18,
    )


def gru_video() -> Made:
    """Frames through a CNN, then a GRU; the last state decides."""

    def forward(net: Any, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        features = net.features(x.flatten(0, 1)).mean((2, 3)).view(n, t, -1)
        return net.fc(net.rnn(features)[1][-1])

    return Net(forward, features=conv_bn(3, 6, stride=2), rnn=nn.GRU(6, 5, batch_first=True), fc=nn.Linear(5, 3)), (
        2,
        4,
        3,
        8,
        8,
    )


KINDS = (audio, wavenet, crnn, gru_video)
