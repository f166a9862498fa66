"""Views of photos: parts of them, mirrored or not, and mixtures, for where there are few photos."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

LEAST_AREA = 0.5
"""Of a photo, that a part has."""


def random_parts(
    x: Tensor, random: torch.Generator, least_area: float = LEAST_AREA, size: Sequence[int] = ()
) -> Tensor:
    """Of each sample a random part of at least ``least_area`` of it, brought to ``size``, (H, W), or its own, every
    second one mirrored."""
    side = (least_area + (1 - least_area) * torch.rand(len(x), generator=random)).sqrt()
    mirrored = torch.where(torch.rand(len(x), generator=random) < 0.5, -1.0, 1.0)
    across, down = (1 - side) * (2 * torch.rand(2, len(x), generator=random) - 1)
    none = torch.zeros_like(side)
    maps = torch.stack([side * mirrored, none, across, none, side, down], dim=1).reshape(-1, 2, 3).to(x)
    grid = functional.affine_grid(maps, [*x.shape[:2], *(size or x.shape[2:])], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def random_mixtures(x: Tensor, random: torch.Generator) -> Tensor:
    """Into every second sample up to half of another is mixed (Zhang et al., "mixup: Beyond Empirical Risk
    Minimization", ICLR 2018)."""
    mixed, share = torch.rand(2, len(x), 1, 1, 1, generator=random)
    other = torch.where(mixed < 0.5, share / 2, 0.0).to(x)
    return x.lerp(x.roll(1, dims=0), other)
