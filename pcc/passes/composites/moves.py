"""Data movement by index: borders that mirror or repeat, reversal, windows, scattering. Tables of places are constants
that fold-constants computes."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcc.passes.canonical import CannotCompile

_aten: Any = torch.ops.aten
_pcc: Any = torch.ops.pcc

LARGEST_INDEX = 1 << 24
"""Up to here fp32 holds every whole number."""


def take(x: Tensor, index: Tensor, dim: int, weight: Tensor | None = None) -> Tensor:
    """Elements of one dimension by an index (P,), or sums of some by index and weight (T, P)."""
    dim = dim % x.dim()
    before, after = x.shape[:dim], x.shape[dim + 1 :]
    if x.shape[dim] > LARGEST_INDEX:
        raise CannotCompile(f"an index into {x.shape[dim]} elements: fp32 numbers them up to {LARGEST_INDEX}")
    index = torch.where(index < 0, index + x.shape[dim], index).to(torch.float32)
    table = index.reshape(1, -1, index.shape[-1])
    taken = _pcc.gather(
        x.reshape(1, prod(before), x.shape[dim], prod(after)),
        table,
        None if weight is None else weight.reshape(table.shape),
    )
    return taken.reshape(*before, index.shape[-1], *after)


# ---- borders ----


def pad(self: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    if mode == "constant":
        return NotImplemented
    return _border(self, pad, mode)


def _border(x: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    for position in range(0, len(pad), 2):
        dim = x.dim() - 1 - position // 2
        before, after, size = pad[position], pad[position + 1], x.shape[dim]
        if not (before or after):
            continue
        if mode == "circular":  # repeats what cropping leaves
            begin, end = max(0, -before), size + min(0, after)
            inside = begin + (torch.arange(-before, size + after) - begin) % (end - begin)
        else:
            inside = _inside(torch.arange(-before, size + after), size, mode)
        x = take(x, inside, dim)
    return x


def _inside(at: Tensor, size: int, mode: str) -> Tensor:
    """The place inside that a place outside stands for."""
    match mode:
        case "reflect":
            inside = at.abs()
            return (size - 1) - ((size - 1) - inside).abs()
        case "replicate":
            return at.clamp(0, size - 1)
        case _:
            raise CannotCompile(f"padding mode '{mode}'")


# ---- reading by index ----


def flip(self: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        self = take(self, torch.arange(self.shape[dim] - 1, -1, -1), dim)
    return self


def roll(self: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    """Without dimensions the flattened tensor is rolled."""
    return NotImplemented if dims else self.reshape(-1).roll(shifts, (0,)).reshape(self.shape)


def index_select(self: Tensor, dim: int, index: Tensor) -> Tensor:
    return take(self, index.reshape(-1), dim)


def index(self: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """``x[:, i, j]``: the indexed dimensions are flattened, and their indices with them."""
    if any(i is not None and i.dtype == torch.bool for i in indices):
        raise CannotCompile("a choice of elements by truth values: the size of the result depends on them")
    x, first, places = _flattened(self, indices)
    taken = take(x, places.reshape(-1), first)
    return taken.reshape(*x.shape[:first], *places.shape, *x.shape[first + 1 :])


def _flattened(x: Tensor, indices: Sequence[Tensor | None]) -> tuple[Tensor, int, Tensor]:
    """``x`` with the indexed dimensions as one, which it is, and their index; they come first if they are not
    neighbours, as PyTorch has it."""
    chosen = [(dim, i) for dim, i in enumerate(indices) if i is not None]
    dims = [dim for dim, _ in chosen]
    first = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    rest = [dim for dim in range(x.dim()) if dim not in dims]
    x = x.permute(*rest[:first], *dims, *rest[first:])
    sizes = x.shape[first : first + len(dims)]
    parts = torch.broadcast_tensors(
        *(torch.where(i < 0, i + size, i) for (_, i), size in zip(chosen, sizes, strict=True))
    )
    places = sum(part * prod(sizes[position + 1 :]) for position, part in enumerate(parts))
    assert isinstance(places, Tensor)
    return x.flatten(first, first + len(dims) - 1), first, places


def gather(self: Tensor, dim: int, index: Tensor) -> Tensor:
    """The places in the flattened tensor: those along ``dim`` are the index, the others are where the index lies."""
    return take(self.reshape(-1), _flat_places(self, dim, index).reshape(-1), 0).reshape(index.shape)


def _flat_places(x: Tensor, dim: int, index: Tensor) -> Tensor:
    places = index * prod(x.shape[dim % x.dim() + 1 :])
    for other, size in enumerate(index.shape):
        if other != dim % x.dim():
            places = places + (torch.arange(size) * prod(x.shape[other + 1 :])).reshape(
                -1, *(1,) * (x.dim() - other - 1)
            )
    return places


def take_along_dim(self: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        return take(self.reshape(-1), indices.reshape(-1), 0)
    shape = torch.broadcast_shapes(
        *([*part.shape[: dim % part.dim()], 1, *part.shape[dim % part.dim() + 1 :]] for part in (self, indices))
    )
    around = [list(shape) for _ in range(2)]
    for sizes, part in zip(around, (self, indices), strict=True):
        sizes[dim] = part.shape[dim]
    return self.expand(around[0]).gather(dim, indices.expand(around[1]))


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """Rows of a table; the other arguments are for training."""
    return take(weight, indices.reshape(-1), 0).reshape(*indices.shape, weight.shape[1])


# ---- writing by index ----


def slice_scatter(
    self: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    first, last, step = slice(start, end, step).indices(self.shape[dim])
    if step == 1:
        return torch.cat([self.narrow(dim, 0, first), src, self.narrow(dim, last, self.shape[dim] - last)], dim)
    size = self.shape[dim]
    table = torch.arange(size).slice_scatter(torch.arange(size, size + src.shape[dim]), 0, first, last, step)
    return take(torch.cat([self, src], dim), table, dim)


def select_scatter(self: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    index = index % self.shape[dim]
    return slice_scatter(self, src.unsqueeze(dim), dim, index, index + 1)


def index_put(self: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """One number where a mask is true; or values at places."""
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool:
        if values.numel() != 1:
            raise CannotCompile("assignment of several values by truth values: where each goes depends on them")
        mask, value = indices[0], values.reshape(())
        return torch.where(
            mask.reshape(*mask.shape, *(1,) * (self.dim() - mask.dim())), self + value if accumulate else value, self
        )
    if any(i is not None and i.dtype == torch.bool for i in indices):
        raise CannotCompile("assignment by truth values and places together")
    places = torch.arange(self.numel()).reshape(self.shape)
    written = places[tuple(slice(None) if i is None else i for i in indices)]
    return _written(self, written, values.expand(written.shape), "sum" if accumulate else "set")


def scatter(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    return _scattered(self, dim, index, src, "set")


def scatter_value(self: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    return _scattered(self, dim, index, torch.full(index.shape, value), "set")


_REDUCTIONS = {"sum": "sum", "add": "sum", "prod": "prod", "multiply": "prod", "amax": "max", "amin": "min"}


def scatter_reduce(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool = True
) -> Tensor:
    """``include_self``: whether what was there counts, too."""
    if reduce == "mean":
        start = self if include_self else scatter_value(self, dim, index, 0.0)
        total = _scattered(start, dim, index, src, "sum")
        return total / _scattered(
            torch.full(self.shape, float(include_self)), dim, index, torch.ones(index.shape), "sum"
        ).clamp_min(1.0)
    mode = _REDUCTIONS[reduce]
    if not include_self:  # a sum starts from 0, a product from 1, an extreme from any of the values
        self = (
            scatter_value(self, dim, index, float(mode == "prod"))
            if mode in ("sum", "prod")
            else scatter(self, dim, index, src)
        )
    return _scattered(self, dim, index, src, mode)


def index_add(self: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float = 1) -> Tensor:
    return _scattered(self, dim, _along(self, dim, index, source), source * alpha, "sum")


def index_copy(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return _scattered(self, dim, _along(self, dim, index, source), source, "set")


def _along(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """An index (P,) of one dimension for each element of ``source``."""
    return index.reshape([-1 if place == dim % x.dim() else 1 for place in range(x.dim())]).expand(source.shape)


def _scattered(x: Tensor, dim: int, index: Tensor, src: Tensor, mode: str) -> Tensor:
    if not x.dim():
        return _scattered(x.reshape(1), 0, index.reshape(1), src.reshape(1), mode).reshape(())
    return _written(x, _flat_places(x, dim, index), src[tuple(slice(0, size) for size in index.shape)], mode)


def _written(x: Tensor, places: Tensor, values: Tensor, mode: str) -> Tensor:
    """``x`` with values at flat places, or combined with what is there; the last one where a place occurs twice."""
    if x.numel() > LARGEST_INDEX:
        raise CannotCompile(f"an index into {x.numel()} elements: fp32 numbers them up to {LARGEST_INDEX}")
    flat, table = x.to(torch.float32).reshape(1, -1), places.to(torch.float32).reshape(1, -1)
    return _pcc.scatter(flat, table, values.to(torch.float32).reshape(1, -1), mode).reshape(x.shape).to(x.dtype)


def copy(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    return src.to(self.dtype).expand(self.shape)


def fill(self: Tensor, value: Any) -> Tensor:
    return (
        value.to(self.dtype).expand(self.shape)
        if isinstance(value, Tensor)
        else torch.full(self.shape, value, dtype=self.dtype)
    )


# ---- windows ----


def im2col(
    self: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Windows of an image as columns (N, C * kh * kw, windows)."""
    if self.dim() == 3:
        return im2col(self.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    x = F.pad(self, (padding[1], padding[1], padding[0], padding[0]))
    batch, channels = x.shape[:2]
    counts = [
        (size - d * (k - 1) - 1) // s + 1
        for size, d, k, s in zip(x.shape[2:], dilation, kernel_size, stride, strict=True)
    ]
    for dim, (count, d, k, s) in enumerate(zip(counts, dilation, kernel_size, stride, strict=True), start=2):
        x = take(x, (torch.arange(k)[:, None] * d + torch.arange(count) * s).reshape(-1), dim)
    x = x.reshape(batch, channels, kernel_size[0], counts[0], kernel_size[1], counts[1])
    return x.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels * prod(kernel_size), prod(counts))


def col2im(
    self: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """Columns as windows of an image that are added up: a transposed convolution of each channel whose filters are unit
    vectors."""
    if self.dim() == 2:
        return col2im(self.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    taps = prod(kernel_size)
    counts = [
        (o + 2 * p - d * (k - 1) - 1) // s + 1
        for o, p, d, k, s in zip(output_size, padding, dilation, kernel_size, stride, strict=True)
    ]
    batch, channels = self.shape[0], self.shape[1] // taps
    windows = self.reshape(batch * channels, taps, *counts)
    rest = [
        o - ((c - 1) * s - 2 * p + d * (k - 1) + 1)
        for o, c, s, p, d, k in zip(output_size, counts, stride, padding, dilation, kernel_size, strict=True)
    ]
    image = F.conv_transpose2d(
        windows, torch.eye(taps).reshape(taps, 1, *kernel_size), None, stride, padding, rest, 1, dilation
    )
    return image.reshape(batch, channels, *output_size)


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of one dimension, their elements a new last dimension."""
    dim = dimension % self.dim()
    count = (self.shape[dim] - size) // step + 1
    taken = take(self, (torch.arange(count)[:, None] * step + torch.arange(size)).reshape(-1), dim)
    return taken.unflatten(dim, (count, size)).movedim(dim + 1, -1)


COMPOSITES = {
    _aten.pad.default: pad,
    **{
        getattr(_aten, f"reflection_pad{rank}d").default: lambda self, padding: _border(self, padding, "reflect")
        for rank in (1, 2)
    },
    **{
        getattr(_aten, f"replication_pad{rank}d").default: lambda self, padding: _border(self, padding, "replicate")
        for rank in (1, 2)
    },
    _aten.flip.default: flip,
    _aten.roll.default: roll,
    _aten.index_select.default: index_select,
    _aten.index.Tensor: index,
    _aten.gather.default: gather,
    _aten.take_along_dim.default: take_along_dim,
    _aten.embedding.default: embedding,
    _aten.slice_scatter.default: slice_scatter,
    _aten.select_scatter.default: select_scatter,
    _aten.index_put.default: index_put,
    _aten.scatter.src: scatter,
    _aten.scatter.value: scatter_value,
    _aten.scatter_add.default: lambda self, dim, index, src: _scattered(self, dim, index, src, "sum"),
    _aten.scatter_reduce.two: scatter_reduce,
    _aten.scatter.reduce: lambda self, dim, index, src, reduce: _scattered(self, dim, index, src, _REDUCTIONS[reduce]),
    _aten.scatter.value_reduce: lambda self, dim, index, value, reduce: _scattered(
        self, dim, index, torch.full(index.shape, value), _REDUCTIONS[reduce]
    ),
    _aten.index_add.default: index_add,
    _aten.index_copy.default: index_copy,
    _aten.copy.default: copy,
    **dict.fromkeys((_aten.fill.Tensor, _aten.fill.Scalar), fill),
    _aten.im2col.default: im2col,
    _aten.col2im.default: col2im,
    _aten.unfold.default: unfold,
}
