"""VGG-16, plain, with batch norms, and its convolutional part alone, in torchvision's key names.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), configuration D.
"""

import torch
from torch import nn

CONFIGURATION_D: tuple[int | None, ...] = (
    64,
    64,
    None,
    128,
    128,
    None,
    256,
    256,
    256,
    None,
    512,
    512,
    512,
    None,
    512,
    512,
    512,
    None,
)
"""Filters of each 3x3 convolution; None is a 2x2 max pooling."""


def vgg_features(
    configuration: tuple[int | None, ...] = CONFIGURATION_D, *, batch_norm: bool = False, bias: bool = True
) -> nn.Sequential:
    """3x3 convolutions and poolings; the default is VGG-16's thirteen and five: (N, 3, H, W) to (N, 512, H/32,
    W/32)."""
    layers: list[nn.Module] = []
    channels = 3
    for filters in configuration:
        if filters is None:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, filters, 3, padding=1, bias=bias))
        if batch_norm:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(nn.ReLU())
        channels = filters
    return nn.Sequential(*layers)


class VGG16Features(nn.Module):
    """The convolutional part alone: (N, 3, 224, 224) to (N, 512, 7, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg_features()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


class VGG16(nn.Module):
    """(N, 3, 224, 224) to (N, num_classes) logits; other sizes from 32 up are pooled to 7x7 before the classifier."""

    def __init__(self, num_classes: int = 1000, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.features = vgg_features(batch_norm=batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.flatten(1))
