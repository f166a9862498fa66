"""LeNet-5 as the pruning literature means it: 20 and 50 filters of 5x5, then 500 and 10 neurons; 430,500 weights, 28x28
grey input.

That is Caffe's descendant of LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998), the
network whose compression ratios Deep Compression, ADMM pruning and their successors report.
"""

import torch
from torch import nn


class LeNet5(nn.Module):
    """(N, 1, 28, 28) grey images to (N, num_classes) logits."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)
