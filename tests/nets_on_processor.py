"""Small networks of which a GPU's program leaves layers to the processor, in the middle and at the end."""

import torch
from torch import nn

from pcc.ir import ops

MIDDLE_SHAPE = (1, 3, 8, 8)
DETECTOR_SHAPE = (1, 3, 64, 64)


class Middle(nn.Module):
    """A linear layer between convolutions, another at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.mid = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 64)
        self.c2, self.fc = nn.Conv2d(4, 8, 3, padding=1), nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.mid(torch.relu(self.c1(x)).flatten(1)).reshape(-1, 4, 4, 4)
        return self.fc(torch.relu(self.c2(y)).flatten(1)).softmax(1)


class Detector(nn.Module):
    """Boxes and scores of two classes; which boxes stay, and the largest scores."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 16, 3, padding=1, stride=2), nn.Conv2d(16, 6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.c2(torch.relu(self.c1(x)))
        scores, boxes = y[:, 4:6].flatten(2), y[:, :4].flatten(2)
        center, half = boxes[:, :2], boxes[:, 2:].abs()
        corners = torch.cat([center - half, center + half], 1)
        return ops.NMS(corners, scores, 20, 0.5, 0.0), scores.topk(5).values


def middle() -> nn.Module:
    torch.manual_seed(0)
    return Middle().eval()


def detector() -> nn.Module:
    torch.manual_seed(0)
    return Detector().eval()
