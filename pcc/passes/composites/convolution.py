"""Convolutions of other kinds as 2-d ones: transposed, 1-d, of inputs without a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcc.passes.composites.moves import im2col

_aten: Any = torch.ops.aten

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
    sides = padding if isinstance(padding, str) else (0, single(padding))
    return F.conv2d(
        input.unsqueeze(-2), weight.unsqueeze(2), bias, (1, single(stride)), sides, (1, single(dilation)), groups
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
        return _with_computed_weight(input, weight, pair(stride), padding, pair(dilation), groups)
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
        sides = [side for amount in reversed(pair(padding)) for side in (amount, amount)]
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
    (sh, sw), pads, extra, dilations = pair(stride), pair(padding), pair(output_padding), pair(dilation)
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
        (1, single(stride)),
        (0, single(padding)),
        (0, single(output_padding)),
        (1, single(dilation)),
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


def single(value: Any) -> int:
    """A number that ATen has alone or as a list of it."""
    return value if isinstance(value, int) else value[0]


def pair(value: Any) -> tuple[int, int]:
    """Numbers of two dimensions, which ATen has as a number for both, a list of it, or two."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


COMPOSITES = {
    **dict.fromkeys((_aten.conv1d.default, _aten.conv1d.padding), conv1d),
    **dict.fromkeys((_aten.conv2d.default, _aten.conv2d.padding), conv2d),
    _aten.convolution.default: convolution,
    _aten.conv_transpose1d.default: conv_transpose1d,
    _aten.conv_transpose2d.input: conv_transpose2d,
}
