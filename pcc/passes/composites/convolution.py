"""Convolutions and pools of other kinds as 2-d ones: transposed, 1-d, of inputs without a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcc.passes.canonical import CannotCompile
from pcc.passes.composites.moves import im2col, take

_aten: Any = torch.ops.aten
_pcc: Any = torch.ops.pcc

MOST_TAPS = 64
"""Of a depthwise convolution whose weight is computed, that are computed one after the other; more are a matrix
product."""


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution of images of height 1."""
    sides = padding if isinstance(padding, str) else (0, _single(padding))
    return F.conv2d(
        input.unsqueeze(-2), weight.unsqueeze(2), bias, (1, _single(stride)), sides, (1, _single(dilation)), groups
    ).squeeze(-2)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    computed: frozenset[str] = frozenset(),
) -> Tensor:
    if input.dim() == 3:
        return F.conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    if bias is not None and computed & {"weight", "bias"}:
        return F.conv2d(input, weight, None, stride, padding, dilation, groups) + bias[:, None, None]
    if "weight" in computed:
        return _with_computed_weight(input, weight, _pair(stride), padding, _pair(dilation), groups)
    return NotImplemented


def _with_computed_weight(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Any, dilation: Sequence[int], groups: int
) -> Tensor:
    """The matrix product of the weight and the input's windows, as correlation trackers and dynamic convolutions have
    it."""
    filters, _, *kernel = weight.shape
    if isinstance(padding, str):  # the odd one behind
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        sides = [side for amount in reversed(total) for side in (amount // 2, amount - amount // 2)]
    else:
        sides = [side for amount in reversed(_pair(padding)) for side in (amount, amount)]
    x = F.pad(x, sides) if any(sides) else x
    sizes = [
        (size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)
    ]
    if groups == x.shape[1] == filters and prod(kernel) <= MOST_TAPS:
        return _tap_by_tap(x, weight, sizes, stride, dilation)
    single = list(kernel) == [1, 1] and list(stride) == [1, 1]
    windows = x if single else im2col(x, kernel, dilation, (0, 0), stride)
    product = weight.reshape(groups, filters // groups, -1) @ windows.reshape(x.shape[0], groups, -1, prod(sizes))
    return product.reshape(x.shape[0], filters, *sizes)


def _tap_by_tap(
    x: Tensor, weight: Tensor, sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """A depthwise convolution: each tap's inputs times its weights, added up."""
    total = None
    for row, column in product(*map(range, weight.shape[2:])):
        down, right = (
            slice(tap * d, tap * d + (size - 1) * s + 1, s)
            for tap, d, size, s in zip((row, column), dilation, sizes, stride, strict=True)
        )
        part = x[:, :, down, right] * weight[:, 0, row, column][:, None, None]
        total = part if total is None else total + part
    assert total is not None
    return total


# ---- transposed ----


@dataclass(frozen=True)
class Phase:
    """The outputs ``phase + stride * q`` of one axis: an ordinary convolution of the input with some of the taps."""

    taps: range
    """In the order in which the input meets them, as places in the reversed kernel."""
    before: int
    """Padding; negative where inputs are left out."""
    after: int
    dilation: int


def phases_of(size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> list[Phase]:
    """Output ``o`` gets ``x[i] * w[t]`` where ``o + padding = i * stride + t * dilation``.

    For ``o = q * stride + phase`` that is ``i = q - (t * dilation - phase - padding) / stride``: taps that divide
    evenly lie ``stride / gcd`` apart, and their inputs ``dilation / gcd``, so each phase is a convolution of its own,
    without zeros between inputs.
    """
    found = []
    for phase in range(stride):
        taps = [t for t in range(kernel) if (t * dilation - phase - padding) % stride == 0]
        offsets = [(t * dilation - phase - padding) // stride for t in taps] or [0]
        after = -(-outputs // stride) - 1 - offsets[0] - (size - 1)
        step = stride // gcd(stride, dilation)
        reversed_taps = range(kernel - 1 - taps[-1], kernel - taps[0], step) if taps else range(0)
        found.append(Phase(reversed_taps, offsets[-1], after, dilation // gcd(stride, dilation)))
    return found


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """One convolution for each phase of the output (sub-pixel convolution), one for all of them if they look alike;
    then phases are interleaved.

    No multiplication by inserted zeros, and each phase has the zeros of its taps, so that sparse kernels apply.
    """
    if input.dim() == 3:
        return conv_transpose2d(
            input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation
        ).squeeze(0)
    (sh, sw), pads, extra, dilations = _pair(stride), _pair(padding), _pair(output_padding), _pair(dilation)
    batch, channels, *sizes = input.shape
    kernel, filters = weight.shape[2:], weight.shape[1]
    outputs = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, s, p, d, k, e in zip(sizes, (sh, sw), pads, dilations, kernel, extra, strict=True)
    ]
    rows, columns = (
        phases_of(size, k, s, p, d, out)
        for size, k, s, p, d, out in zip(sizes, kernel, (sh, sw), pads, dilations, outputs, strict=True)
    )
    grouped = weight.reshape(groups, channels // groups, filters, *kernel).transpose(1, 2).flip(-2, -1)
    kernels = [grouped[..., _slice(row.taps), _slice(column.taps)] for row in rows for column in columns]
    alike = all(len({(len(p.taps), p.before, p.after) for p in axis}) == 1 for axis in (rows, columns))
    if alike:
        stacked, repeated = (
            torch.stack(kernels, 1),
            None if bias is None else bias.reshape(groups, 1, filters).expand(-1, sh * sw, -1).reshape(-1),
        )
        values = _convolve(input, stacked.flatten(0, 2), repeated, rows[0], columns[0], groups)
    else:
        pairs = [(row, column) for row in rows for column in columns]
        parts = [
            _convolve(input, part.flatten(0, 1), bias, *pair, groups) for part, pair in zip(kernels, pairs, strict=True)
        ]
        values = torch.stack([part.unflatten(1, (groups, filters)) for part in parts], 2)
    height, width = (-(-out // s) for out, s in zip(outputs, (sh, sw), strict=True))
    spread = values.reshape(batch, groups, sh, sw, filters, height, width).permute(0, 1, 4, 5, 2, 6, 3)
    return spread.reshape(batch, groups * filters, height * sh, width * sw)[:, :, : outputs[0], : outputs[1]]


def _slice(taps: range) -> slice:
    return slice(taps.start, taps.stop, taps.step)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, row: Phase, column: Phase, groups: int) -> Tensor:
    """One phase's convolution; without taps it is the bias alone."""
    if not row.taps or not column.taps:
        size = [
            n + p.before + p.after - p.dilation * max(0, len(p.taps) - 1)
            for n, p in zip(x.shape[2:], (row, column), strict=True)
        ]
        zeros = x.new_zeros(x.shape[0], weight.shape[0], *size)
        return zeros if bias is None else zeros + bias[:, None, None]
    return F.conv2d(
        F.pad(x, (column.before, column.after, row.before, row.after)),
        weight,
        bias,
        1,
        0,
        (row.dilation, column.dilation),
        groups,
    )


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    steps, sides, extra, dilations = (
        (1, _single(stride)),
        (0, _single(padding)),
        (0, _single(output_padding)),
        (1, _single(dilation)),
    )
    return conv_transpose2d(
        input.unsqueeze(-2), weight.unsqueeze(2), bias, steps, sides, extra, groups, dilations
    ).squeeze(-2)


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *,
    computed: frozenset[str] = frozenset(),
) -> Tensor:
    """The general form."""
    rank = weight.dim() - 2
    if rank > 2:
        return NotImplemented
    if rank == 2 and not transposed:
        return conv2d(input, weight, bias, stride, padding, dilation, groups, computed=computed)
    if transposed:
        return (conv_transpose1d if rank == 1 else conv_transpose2d)(
            input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return F.conv1d(input, weight, bias, stride, padding, dilation, groups)


# ---- pools ----


def avg_pool1d(
    self: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    kernel = (1, _single(kernel_size))
    return F.avg_pool2d(
        self.unsqueeze(-2), kernel, _step(stride, kernel), (0, _single(padding)), ceil_mode, count_include_pad
    ).squeeze(-2)


def max_pool1d(
    self: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    kernel = (1, _single(kernel_size))
    return F.max_pool2d(
        self.unsqueeze(-2), kernel, _step(stride, kernel), (0, _single(padding)), (1, _single(dilation)), ceil_mode
    ).squeeze(-2)


def max_pool1d_with_places(
    self: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor]:
    kernel = (1, _single(kernel_size))
    values, places = F.max_pool2d_with_indices(
        self.unsqueeze(-2), kernel, _step(stride, kernel), (0, _single(padding)), (1, _single(dilation)), ceil_mode
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
    kernel, pads = _pair(kernel_size), _pair(padding)
    steps = _pair(stride or kernel)
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
    kernel, pads, apart = _pair(kernel_size), _pair(padding), _pair(dilation)
    steps = _pair(stride or kernel)
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
        values = pool(self.unsqueeze(-2), (1, _single(output_size)))
        return tuple(value.squeeze(-2) for value in values) if isinstance(values, tuple) else values.squeeze(-2)

    return function


def _single(value: Any) -> int:
    return value if isinstance(value, int) else value[0]


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def _step(stride: Any, kernel: Sequence[int]) -> tuple[int, ...]:
    return (1, _single(stride)) if stride or isinstance(stride, int) else tuple(kernel)


COMPOSITES = {
    **dict.fromkeys((_aten.conv1d.default, _aten.conv1d.padding), conv1d),
    **dict.fromkeys((_aten.conv2d.default, _aten.conv2d.padding), conv2d),
    _aten.convolution.default: convolution,
    _aten.conv_transpose1d.default: conv_transpose1d,
    _aten.conv_transpose2d.input: conv_transpose2d,
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
