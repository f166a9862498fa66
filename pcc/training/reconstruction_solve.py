"""Least squares on the weights that stay, and which stay: ADMM on one layer's quadratic.

The task of one layer is  min |X W - Y|^2  with W in a structure. As in ALPS (Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot
Pruning for Large Language Models", 2024), ADMM splits it into a linear system, the same one for all filters, and a projection; a growing penalty makes
the two agree; conjugate gradients then solve for the weights that stay, all filters at once whatever their support. Departures: the projection is that
of any structure; weights are measured by what they do (inputs scaled to unit power, filters by the batch norm that follows), so that magnitudes
compare; and a ridge towards the dense weight stands for what few samples cannot tell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pcc.training.reconstruction_moments import Moments

Project = Callable[[torch.Tensor], torch.Tensor]
"""The nearest weight of a structure, on tensors (O, n)."""

RIDGE = 0.1
PENALTIES = (0.1, 0.3, 1.0, 3.0)
STEPS = 8
CG_STEPS = 40


@dataclass(frozen=True)
class Quadratic:
    """1/2 <V, A V> - <B, V> over V (g, n, O / g), the weight in units of its effect; A has a diagonal of ones."""

    a: torch.Tensor
    b: torch.Tensor
    unit: torch.Tensor
    """V / W, (g, n, O / g)."""

    @staticmethod
    def of(moments: Moments, dense: torch.Tensor, scale: torch.Tensor) -> "Quadratic":
        """With a ridge towards the ``dense`` weight (g, n, O / g); ``scale`` (O,) is what a unit of each output counts."""
        power = moments.xx.diagonal(dim1=1, dim2=2)
        ridge = RIDGE * power + 1e-4 * power.mean(dim=1, keepdim=True) + torch.finfo(power.dtype).tiny
        size = (power + ridge).sqrt()
        filters = scale.reshape(len(dense), 1, -1)
        a = (moments.xx + torch.diag_embed(ridge)) / (size[:, :, None] * size[:, None, :])
        b = (moments.xy + ridge[:, :, None] * dense) / size[:, :, None] * filters
        return Quadratic(a, b, size[:, :, None] * filters)

    def value(self, v: torch.Tensor) -> float:
        return float((v * (self.a @ v / 2 - self.b)).double().sum())


def admm(quadratic: Quadratic, start: torch.Tensor, project: Project) -> torch.Tensor:
    """The best point of the structure that ADMM meets from ``start``."""
    v = start
    z = project(v)
    dual = torch.zeros_like(z)
    best, least = z, quadratic.value(z)
    for rho in PENALTIES:
        eye = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        factor = torch.linalg.cholesky(quadratic.a + rho * eye)
        for _ in range(STEPS):
            v = torch.cholesky_solve(quadratic.b + rho * (z - dual), factor)
            z = project(v + dual)
            dual = dual + v - z
            value = quadratic.value(z)
            if value < least:
                best, least = z, value
        dual = dual * 0
    return z


def refit(quadratic: Quadratic, start: torch.Tensor) -> torch.Tensor:
    """The least point with the zeros of ``start``, by conjugate gradients; the unit diagonal of A is their preconditioner."""
    kept = start != 0
    v = start
    residual = (quadratic.b - quadratic.a @ v) * kept
    direction = residual
    power = residual.square().sum(dim=1, keepdim=True)
    enough = 1e-10 * quadratic.b.square().sum()
    for _ in range(CG_STEPS):
        if power.sum() <= enough:
            break
        image = quadratic.a @ direction
        step = power / (direction * image).sum(dim=1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
        v = v + step * direction
        residual = residual - step * image * kept
        new = residual.square().sum(dim=1, keepdim=True)
        direction = residual + new / power.clamp_min(torch.finfo(v.dtype).tiny) * direction
        power = new
    return v
