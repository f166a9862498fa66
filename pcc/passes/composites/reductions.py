"""Extremes, their places, products, truth and running sums along dimensions."""

from math import prod
from typing import Any

import torch
from torch import Tensor

_aten: Any = torch.ops.aten
_pcc: Any = torch.ops.pcc


def columns(x: Tensor, dim: int) -> Tensor:
    """``x`` as (outer, size, inner) around a dimension."""
    dim = dim % x.dim() if x.dim() else 0
    shape = x.shape or (1,)
    return x.reshape(prod(shape[:dim]), shape[dim], prod(shape[dim + 1 :]))


def top_k(x: Tensor, k: int, dim: int, largest: bool) -> tuple[Tensor, Tensor]:
    """(values, places int64), the dimension k long."""
    shape = list(x.shape or (1,))
    shape[dim % len(shape)] = k
    values, places = (_pcc.top_k(columns(x, dim), k, largest, indices).reshape(shape) for indices in (False, True))
    return (values, places.to(torch.int64)) if x.dim() else (values.reshape(()), places.to(torch.int64).reshape(()))


def extreme_along(largest: bool) -> Any:
    """``max.dim``, ``min.dim``: (values, places)."""

    def function(self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        values = self.amax(dim, keepdim) if largest else self.amin(dim, keepdim)
        return values, place_of(largest)(self, dim, keepdim)

    return function


def place_of(largest: bool) -> Any:
    """``argmax``, ``argmin``."""

    def function(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        flat = self.reshape(-1) if dim is None else self
        if not largest and self.is_floating_point():  # as NaN is the largest in `top_k`, and has the place in PyTorch
            flat = -flat
        places = top_k(flat, 1, dim or 0, largest or self.is_floating_point())[1]
        if keepdim:
            return places.reshape((1,) * self.dim()) if dim is None else places
        return places.reshape(()) if dim is None else places.squeeze(dim)

    return function


def amin(self: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    if not self.is_floating_point():  # truth has no negative, and that of a byte is another byte
        return self.to(torch.float32).amin(dim, keepdim).to(self.dtype)
    return -(-self).amax(dim, keepdim)


def product(self: Tensor, dim: int | None = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """The last of the running products, as `running_total` has their type."""
    if not (dtype or self.dtype).is_floating_point:
        self = self.to(dtype or torch.int64)
    elif not self.is_floating_point():
        self = self.to(torch.float32)
    if dim is None:
        return _pcc.scan(self.reshape(1, -1, 1), "prod")[0, -1, 0]
    last = _pcc.scan(columns(self, dim), "prod")[:, -1]
    shape = list(self.shape)
    shape[dim] = 1
    return last.reshape(shape) if keepdim else last.reshape(shape).squeeze(dim)


def any_(self: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    truth = (self != 0).to(torch.float32)
    return truth.amax(tuple(range(self.dim())) if dim is None else dim, keepdim) != 0


def all_(self: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return any_(self == 0, dim, keepdim) == 0


def running(mode: str) -> Any:
    """``cummax`` and the like."""

    def function(self: Tensor, dim: int) -> Tensor:
        return _pcc.scan(columns(self, dim), mode).reshape(self.shape)

    return function


def running_total(mode: str) -> Any:
    """``cumsum``, ``cumprod``: whole numbers of whole numbers and truth values, unless a floating-point type is
    written."""

    def function(self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        if not (dtype or self.dtype).is_floating_point:
            return running(mode)(self.to(torch.int64), dim).to(dtype or torch.int64)
        return running(mode)(self if self.is_floating_point() else self.to(torch.float32), dim)

    return function


def running_extreme(largest: bool) -> Any:
    """``cummax``, ``cummin``: (values, the last places where they were found)."""

    def function(self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        values = running("max" if largest else "min")(self, dim)
        counting = torch.arange(self.shape[dim], dtype=torch.float32).reshape(
            [-1 if d == dim % self.dim() else 1 for d in range(self.dim())]
        )
        found = torch.where((self == values) | (self != self), counting, 0.0)
        return values, running("max")(found, dim).to(torch.int64)

    return function


def topk(self: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """``sorted`` or not: they come in order."""
    return top_k(self, k, dim, largest)


def sort(self: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None) -> tuple[Tensor, Tensor]:
    """``stable`` or not: equal values keep their order."""
    return top_k(self, self.shape[dim], dim, descending)


def argsort(self: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    return top_k(self, self.shape[dim], dim, descending)[1]


def median(self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of two in the middle."""
    return kth_value(self, (self.shape[dim] + 1) // 2, dim, keepdim)


def median_of_all(self: Tensor) -> Tensor:
    return median(self.reshape(-1), 0)[0]


def kth_value(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest is the first."""
    found = (part.narrow(dim, k - 1, 1) for part in top_k(self, k, dim, False))
    first, second = (part if keepdim else part.squeeze(dim) for part in found)
    return first, second


def bucketize(self: Tensor, boundaries: Tensor, out_int32: bool = False, right: bool = False) -> Tensor:
    """How many boundaries are smaller, or with ``right`` not larger; of what is no number, all."""
    beyond = (self.unsqueeze(-1) < boundaries) if right else (self.unsqueeze(-1) <= boundaries)
    return (beyond == 0).sum(-1).to(torch.int32 if out_int32 else torch.int64)


def searchsorted(
    sorted_sequence: Tensor, self: Tensor, out_int32: bool = False, right: bool = False, side: str | None = None
) -> Tensor:
    """`bucketize`, each row with boundaries of its row."""
    rows = sorted_sequence.unsqueeze(-2) if sorted_sequence.dim() > 1 else sorted_sequence
    return bucketize(self, rows, out_int32, right or side == "right")


def logsumexp(self: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """Shifted by the maximum, if it is a number: the sum of infinities is one."""
    peak = self.amax(dim, keepdim=True)
    shift = torch.where(peak.abs() == torch.inf, 0.0, peak)
    total = (self - shift).exp().sum(dim, keepdim=True).log() + shift
    return total if keepdim else total.reshape(self.amax(dim).shape)


COMPOSITES = {
    _aten.max.dim: extreme_along(True),
    _aten.min.dim: extreme_along(False),
    _aten.max.default: lambda self: self.amax(),
    _aten.min.default: lambda self: self.amin(),
    _aten.amin.default: amin,
    _aten.aminmax.default: lambda self, dim=None, keepdim=False: (
        (self.amin((), keepdim), self.amax((), keepdim))
        if dim is None
        else (self.amin(dim, keepdim), self.amax(dim, keepdim))
    ),
    _aten.argmax.default: place_of(True),
    _aten.argmin.default: place_of(False),
    **dict.fromkeys((_aten.prod.default, _aten.prod.dim_int), product),
    **dict.fromkeys((_aten.any.default, _aten.any.dim, _aten.any.dims), any_),
    **dict.fromkeys((_aten.all.default, _aten.all.dim, _aten.all.dims), all_),
    _aten.cumsum.default: running_total("sum"),
    _aten.cumprod.default: running_total("prod"),
    _aten.cummax.default: running_extreme(True),
    _aten.cummin.default: running_extreme(False),
    _aten.topk.default: topk,
    **dict.fromkeys((_aten.sort.default, _aten.sort.stable), sort),
    **dict.fromkeys((_aten.argsort.default, _aten.argsort.stable), argsort),
    _aten.median.default: median_of_all,
    _aten.median.dim: median,
    _aten.kthvalue.default: kth_value,
    _aten.bucketize.Tensor: bucketize,
    _aten.searchsorted.Tensor: searchsorted,
    _aten.logsumexp.default: logsumexp,
}
