"""Views of photos: parts of them, mirrored or not, for where there are few photos."""

import torch
from torch import Tensor
from torch.nn import functional

LEAST_AREA = 0.5
"""Of a photo, that a part has."""


def random_parts(x: Tensor, random: torch.Generator) -> Tensor:
    """Of each sample a random part of at least `LEAST_AREA` of it, brought to its size, every second one mirrored."""
    side = (LEAST_AREA + (1 - LEAST_AREA) * torch.rand(len(x), generator=random)).sqrt()
    mirrored = torch.where(torch.rand(len(x), generator=random) < 0.5, -1.0, 1.0)
    across, down = (1 - side) * (2 * torch.rand(2, len(x), generator=random) - 1)
    none = torch.zeros_like(side)
    maps = torch.stack([side * mirrored, none, across, none, side, down], dim=1).reshape(-1, 2, 3).to(x)
    grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
