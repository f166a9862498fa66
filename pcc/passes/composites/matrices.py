"""Diagonals, triangles, meshes and vector products."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcc.passes.canonical import CannotCompile
from pcc.passes.composites.moves import take

_aten: Any = torch.ops.aten


def triangle(lower: bool) -> Any:
    """``tril`` and ``triu``."""

    def function(self: Tensor, diagonal: int = 0) -> Tensor:
        below = torch.arange(self.shape[-1]) - torch.arange(self.shape[-2])[:, None]
        return torch.where(below <= diagonal if lower else below >= diagonal, self, _zero(self))

    return function


def _zero(x: Tensor) -> Tensor:
    return torch.zeros((), dtype=x.dtype)  # the number 0 would make whole numbers of truth


def diagonal(self: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions, as a new last one."""
    x = self.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    row, column = max(0, -offset), max(0, offset)
    count = max(0, min(rows - row, columns - column))
    return take(x.flatten(-2), (torch.arange(count) + row) * columns + torch.arange(count) + column, -1)


def diag_embed(self: Tensor, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last dimension as the diagonal of two, zeros beside it."""
    on = torch.eye(self.shape[-1], dtype=torch.bool)
    return torch.where(on, self.unsqueeze(-1), _zero(self)).movedim((-2, -1), (dim1, dim2))


def meshgrid(tensors: Sequence[Tensor], indexing: str = "ij") -> list[Tensor]:
    """``xy`` has the first two dimensions the other way round."""
    sizes = [x.numel() for x in tensors]
    grids = [
        x.reshape([-1 if dim == place else 1 for dim in range(len(sizes))]).expand(sizes)
        for place, x in enumerate(tensors)
    ]
    return [grid.transpose(0, 1) for grid in grids] if indexing == "xy" and len(sizes) > 1 else grids


def linalg_cross(self: Tensor, other: Tensor, dim: int = -1) -> Tensor:
    after, last = (torch.arange(3) + 1) % 3, (torch.arange(3) + 2) % 3
    return take(self, after, dim) * take(other, last, dim) - take(self, last, dim) * take(other, after, dim)


def cross(self: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """Along the first dimension of three numbers, unless another is written."""
    return linalg_cross(self, other, self.shape.index(3) if dim is None else dim)


def one_hot(self: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        raise CannotCompile("the number of classes is the largest value and one more: give one_hot num_classes")
    return (self.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


COMPOSITES = {
    _aten.tril.default: triangle(True),
    _aten.triu.default: triangle(False),
    _aten.diagonal.default: diagonal,
    _aten.diag_embed.default: diag_embed,
    **dict.fromkeys((_aten.meshgrid.default, _aten.meshgrid.indexing), meshgrid),
    _aten.linalg_cross.default: linalg_cross,
    _aten.cross.default: cross,
    _aten.one_hot.default: one_hot,
}
