"""Which weights of a layer stay and what they become: ADMM on the layer's quadratic, then least squares on what stayed.

The task of one layer is min |X W - Y|^2 with W in a structure. As in ALPS (Meng et al., "ALPS: Improved Optimization
for Highly Sparse One-Shot Pruning for Large Language Models", NeurIPS 2024), ADMM splits it into a linear system, one
factorisation for all filters, and a projection; a growing penalty makes the two agree; conjugate gradients then solve
for the weights that stay, all filters at once whatever stayed of each. Departures: the projection is that of any
structure; zeros are chosen with weights in units of their effect (inputs of unit power, filters as the batch norm
behind them scales them), so that what is large matters; and a ridge towards the dense weight stands for what few
samples cannot tell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pcc.training.reconstruction_moments import Moments

RIDGE = 0.1
"""Of an input's power: how much a weight is held to its dense value."""
PENALTIES = (0.1, 0.3, 1.0, 3.0)
"""ADMM's rho, in stages; the quadratic has a diagonal of about 1."""
STEPS = 8
"""Of ADMM in each stage."""
MOST_GRADIENTS = 40
"""Steps of conjugate gradients."""
EXACT = 1e-10
"""Squared residual, over the right side's squares, at which they end."""


@dataclass(frozen=True)
class Quadratic:
    """1/2 <V, A V> - <B, V>, V (g, n, O / g) for g groups: the squared error of a weight W = V / unit, but for a
    constant."""

    a: torch.Tensor
    """(g, n, n), a diagonal of 1 or about 1."""
    b: torch.Tensor
    """(g, n, O / g)."""
    unit: torch.Tensor
    """(g or 1, n or 1, O / g or 1)."""

    @staticmethod
    def of(moments: Moments, dense: torch.Tensor, scale: torch.Tensor | None) -> "Quadratic":
        """With the ridge towards the ``dense`` weight (g, n, O / g). ``scale`` (g, 1, O / g) is what a unit of each
        output counts; without it V is a multiple of W.
        """
        power = moments.xx.diagonal(dim1=1, dim2=2)
        floor = power.mean() + torch.finfo(power.dtype).tiny
        ridge = RIDGE * power + 1e-4 * floor  # inputs that are always zero keep their weights
        size = (power + ridge).sqrt() if scale is not None else floor.sqrt().expand_as(power)
        filters = torch.ones_like(dense[:, :1]) if scale is None else scale
        a = (moments.xx + torch.diag_embed(ridge)) / (size[:, :, None] * size[:, None, :])
        b = (moments.xy + ridge[:, :, None] * dense) / size[:, :, None] * filters
        return Quadratic(a, b, size[:, :, None] * filters)

    def value(self, v: torch.Tensor) -> float:
        return float((v * (self.a @ v / 2 - self.b)).sum(dtype=torch.float64))


def admm(quadratic: Quadratic, start: torch.Tensor, project: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The least of the points of the structure that ADMM's stages end in, from ``start``; ``project`` gives the
    structure's nearest point (g, n, O / g)."""
    z = best = project(start)
    least = quadratic.value(z)
    identity = torch.eye(start.shape[1], dtype=start.dtype, device=start.device)
    for rho in PENALTIES:
        factor = torch.linalg.cholesky(quadratic.a + rho * identity)
        dual = torch.zeros_like(z)
        for _ in range(STEPS):
            v = torch.cholesky_solve(quadratic.b + rho * (z - dual), factor)
            z = project(v + dual)
            dual += v - z
        value = quadratic.value(z)
        if value < least:
            best, least = z, value
    return best


def refit(quadratic: Quadratic, start: torch.Tensor, precision: float = EXACT) -> torch.Tensor:
    """The least point that is zero where ``start`` is, by conjugate gradients from there, each filter with steps of its
    own, until squared residuals are ``precision`` of the right side's squares."""
    kept = start != 0
    tiny = torch.finfo(start.dtype).tiny
    v = start
    residual = (quadratic.b - quadratic.a @ v) * kept
    direction = residual
    power = residual.square().sum(dim=1, keepdim=True)
    enough = precision * quadratic.b.square().sum()
    for _ in range(MOST_GRADIENTS):
        if power.sum() <= enough:
            break
        image = quadratic.a @ direction
        step = power / (direction * image).sum(dim=1, keepdim=True).clamp_min(tiny)
        v = v + step * direction
        residual = residual - step * (image * kept)
        before, power = power, residual.square().sum(dim=1, keepdim=True)
        direction = residual + power / before.clamp_min(tiny) * direction
    return v
