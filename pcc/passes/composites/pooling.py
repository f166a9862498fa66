"""Pools of other kinds as 2-d ones of batches: 1-d, of inputs without a batch; those that tell where their maxima are
from the windows written out."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcc.passes.canonical import CannotCompile
from pcc.passes.composites.convolution import pair, single
from pcc.passes.composites.moves import take

_aten: Any = torch.ops.aten
_pcc: Any = torch.ops.pcc


def avg_pool1d(
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    kernel = (1, single(kernel_size))
    return F.avg_pool2d(
        self.unsqueeze(-2), kernel, _step(stride, kernel), (0, single(padding)), ceil_mode, count_include_pad
    ).squeeze(-2)


def max_pool1d(
    self: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    kernel = (1, single(kernel_size))
    return F.max_pool2d(
        self.unsqueeze(-2), kernel, _step(stride, kernel), (0, single(padding)), (1, single(dilation)), ceil_mode
    ).squeeze(-2)


def max_pool1d_with_places(
    self: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor]:
    kernel = (1, single(kernel_size))
    values, places = F.max_pool2d_with_indices(
        self.unsqueeze(-2), kernel, _step(stride, kernel), (0, single(padding)), (1, single(dilation)), ceil_mode
    )
    return values.squeeze(-2), places.squeeze(-2)


def avg_pool2d(
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """With a divisor of its own it is a mean of whole windows, times their size by the divisor: what hangs over counts
    as zeros."""
    if self.dim() == 3:
        return F.avg_pool2d(
            self.unsqueeze(0), kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override
        ).squeeze(0)
    if divisor_override is None:
        return NotImplemented
    kernel, pads = pair(kernel_size), pair(padding)
    steps = pair(stride or kernel)
    sizes = F.avg_pool2d(self, kernel, steps, pads, ceil_mode).shape[2:]
    sides = [
        side
        for k, s, p, n, size in zip(kernel, steps, pads, sizes, self.shape[2:], strict=True)
        for side in (p, (n - 1) * s + k - size - p)
    ]
    padded = F.pad(self, (*sides[2:], *sides[:2]))
    return F.avg_pool2d(padded, kernel, steps) * (prod(kernel) / divisor_override)


def avg_pool3d(
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Along the first of the three dimensions only, as local response normalisation has it."""
    kernel, steps, pads = (
        [value] * 3 if isinstance(value, int) else list(value)
        for value in (kernel_size, stride or kernel_size, padding)
    )
    if (kernel[1:], steps[1:], pads[1:]) != ([1, 1], [1, 1], [0, 0]):
        raise CannotCompile("pooling of volumes; pcc pools images")
    planes = self.flatten(-2)
    return F.avg_pool2d(planes, (kernel[0], 1), (steps[0], 1), (pads[0], 0), ceil_mode, count_include_pad).unflatten(
        -1, self.shape[-2:]
    )


def max_pool_with_places(
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    used: frozenset[int] = frozenset(),
) -> tuple[Tensor, Tensor]:
    """Where somebody asks for the places of the maxima in the image: the first largest element of each window, from the
    windows written out."""
    if self.dim() == 3:
        return tuple(
            part.squeeze(0)
            for part in F.max_pool2d_with_indices(
                self.unsqueeze(0), kernel_size, stride or None, padding, dilation, ceil_mode
            )
        )  # type: ignore[return-value]
    if 1 not in used:
        return NotImplemented
    kernel, pads, apart = pair(kernel_size), pair(padding), pair(dilation)
    steps = pair(stride or kernel)
    values = F.max_pool2d(self, kernel, steps, pads, apart, ceil_mode)
    sizes, (height, width) = values.shape[2:], self.shape[2:]
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(sizes, steps, apart, kernel, strict=True)]
    behind = [max(0, need - have - before) for need, have, before in zip(reach, (height, width), pads, strict=True)]
    x = F.pad(self, (pads[1], behind[1], pads[0], behind[0]), value=-torch.inf)
    rows, columns = (
        torch.arange(k)[:, None] * d + torch.arange(n) * s
        for k, d, n, s in zip(kernel, apart, sizes, steps, strict=True)
    )
    tap = _pcc.top_k(_windows(x, rows, columns), 1, True, True).reshape(values.shape)
    down = torch.floor(tap / kernel[1])
    row = down * apart[0] + (torch.arange(sizes[0]) * steps[0] - pads[0]).reshape(-1, 1)
    column = (tap - down * kernel[1]) * apart[1] + (torch.arange(sizes[1]) * steps[1] - pads[1])
    return values, (row * width + column).to(torch.int64)


def adaptive_max_pool2d(
    self: Tensor, output_size: Sequence[int], *, used: frozenset[int] = frozenset()
) -> tuple[Tensor, Tensor]:
    """Where somebody asks for the places of the maxima, the windows are written out, as large as the largest; smaller
    ones have their last elements twice."""
    if self.dim() == 3:
        return tuple(part.squeeze(0) for part in F.adaptive_max_pool2d_with_indices(self.unsqueeze(0), output_size))  # type: ignore[return-value]
    if 1 not in used:
        return NotImplemented
    sizes, width = self.shape[2:], self.shape[3]
    starts, tables = [], []
    for size, count in zip(sizes, output_size, strict=True):
        begin = torch.arange(count) * size // count
        end = -(-(torch.arange(count) + 1) * size // count)
        longest = max(-(-(i + 1) * size // count) - i * size // count for i in range(count))
        starts.append(begin)
        tables.append(torch.minimum(begin + torch.arange(longest)[:, None], end - 1))
    windows = _windows(self, *tables)
    values, tap = (
        _pcc.top_k(windows, 1, True, indices).reshape(*self.shape[:2], *output_size) for indices in (False, True)
    )
    down = torch.floor(tap / tables[1].shape[0])
    row, column = down + starts[0].reshape(-1, 1), tap - down * tables[1].shape[0] + starts[1]
    return values, (row * width + column).to(torch.int64)


def _windows(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The elements of each window, (N * C, taps, windows), by tables of rows and columns (taps, windows) of each
    axis."""
    (kh, height), (kw, width) = rows.shape, columns.shape
    taken = take(take(x, rows.reshape(-1), 2), columns.reshape(-1), 3).reshape(-1, kh, height, kw, width)
    return taken.permute(0, 1, 3, 2, 4).reshape(-1, kh * kw, height * width)


def max_unpool2d(self: Tensor, indices: Tensor, output_size: Sequence[int]) -> Tensor:
    """Each value at its place, zeros elsewhere."""
    rows = prod(self.shape[:-2])
    places, values = (part.reshape(rows, -1) for part in (indices.to(torch.float32), self))
    return _pcc.scatter(torch.zeros(rows, prod(output_size)), places, values, "set").reshape(
        *self.shape[:-2], *output_size
    )


def batched(pool: Callable[..., Any], rank: int) -> Callable[..., Any]:
    """A pool of an input that may lack its batch dimension; with it the operator stays as it is."""

    def function(self: Tensor, **options: Any) -> Any:
        if self.dim() == rank + 2:
            return NotImplemented
        values = pool(self.unsqueeze(0), **options)
        return tuple(value.squeeze(0) for value in values) if isinstance(values, tuple) else values.squeeze(0)

    return function


def adaptive_row(pool: Callable[..., Any]) -> Callable[..., Any]:
    """A 1-d adaptive pool as a 2-d one."""

    def function(self: Tensor, output_size: Any) -> Any:
        values = pool(self.unsqueeze(-2), (1, single(output_size)))
        return tuple(value.squeeze(-2) for value in values) if isinstance(values, tuple) else values.squeeze(-2)

    return function


def _step(stride: Any, kernel: Sequence[int]) -> tuple[int, ...]:
    return (1, single(stride)) if stride or isinstance(stride, int) else tuple(kernel)


COMPOSITES = {
    _aten.avg_pool1d.default: avg_pool1d,
    _aten.max_pool1d.default: max_pool1d,
    _aten.max_pool1d_with_indices.default: max_pool1d_with_places,
    _aten.avg_pool2d.default: avg_pool2d,
    _aten.avg_pool3d.default: avg_pool3d,
    _aten.max_pool2d.default: batched(_aten.max_pool2d.default, 2),
    _aten.max_pool2d_with_indices.default: max_pool_with_places,
    _aten.max_unpool2d.default: max_unpool2d,
    _aten.adaptive_avg_pool2d.default: batched(_aten.adaptive_avg_pool2d.default, 2),
    _aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
    _aten.adaptive_avg_pool1d.default: adaptive_row(_aten.adaptive_avg_pool2d.default),
    _aten.adaptive_max_pool1d.default: adaptive_row(_aten.adaptive_max_pool2d.default),
}
