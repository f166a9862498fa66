"""The operators of the graph: ``torch.ops.pcc.*`` with reference semantics in PyTorch and shape functions.

Activations are NCHW fp32 of static shape. Padding is always (top, left, bottom, right). ``activation`` is the text of
`pcc.ir.activation`. Data movement stays ATen: ``reshape``, ``permute``, ``slice``, ``expand``, ``constant_pad_nd``.

Importing this module registers the operators; the names in capitals are what graph nodes have as their target.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from pcc.dtype import dtype_named
from pcc.errors import PccError
from pcc.ir import expression as language
from pcc.ir.activation import Activation
from pcc.ir.graph import arguments, constant
from pcc.ir.register import CANONICAL, register
from pcc.sparsity.formats import PackedWeight, format_named

# ---- convolution ----


def window_output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[int, int]:
    """(height, width) of what a sliding window makes of an image of ``size``; in ceil mode a last window may hang over,
    if it starts inside."""

    def extent(axis: int) -> int:
        before, after = padding[axis], padding[axis + 2]
        free = size[axis] + before + after - dilation[axis] * (kernel[axis] - 1) - 1
        windows = (ceil(free / stride[axis]) if ceil_mode else free // stride[axis]) + 1
        if ceil_mode and (windows - 1) * stride[axis] >= size[axis] + before:
            windows -= 1
        if windows < 1:
            raise PccError(
                f"a window of {tuple(kernel)} (dilation {tuple(dilation)}) does not fit an image of {tuple(size)} "
                f"padded by {tuple(padding)}"
            )
        return windows

    return extent(0), extent(1)


def padded(x: Tensor, padding: Sequence[int], fill: float = 0.0) -> Tensor:
    """Planes with ``padding`` (top, left, bottom, right) around them."""
    top, left, bottom, right = padding
    return F.pad(x, (left, right, top, bottom), value=fill) if any(padding) else x


def _finish(value: Tensor, residual: Tensor | None, activation: str, parameter: Tensor | None) -> Tensor:
    """The epilogue: residual add, then activation."""
    of_channels = None if parameter is None else parameter.reshape(-1, *(1,) * (value.dim() - 2))
    return Activation.parse(activation)(value if residual is None else value + residual, of_channels)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    parameter: Tensor | None = None,
) -> Tensor:
    symmetric = padding[:2] == padding[2:]
    value = F.conv2d(
        x if symmetric else padded(x, padding), weight, bias, stride, padding[:2] if symmetric else 0, dilation, groups
    )
    return _finish(value, residual, activation, parameter).contiguous()


def _conv2d_shape(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    residual: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    parameter: Any = None,
) -> tuple[int, ...]:
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise PccError(f"conv2d: input {tuple(x.shape)} does not fit weight {tuple(weight.shape)} with groups={groups}")
    return x.shape[0], weight.shape[0], *window_output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)


CONV2D = register(
    "conv2d(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int[] stride, int[] padding, int[] dilation, int "
    "groups, str activation, Tensor? parameter=None) -> Tensor",
    _conv2d,
    _conv2d_shape,
)
"""``activation(conv(x, weight) + bias + residual)``; weight (O, I/groups, kh, kw), ``parameter`` (O,) for activations
that have one a channel."""


def _packed(
    format: str, shape: Sequence[int], groups: int, numbers: Sequence[int], arrays: Sequence[Tensor]
) -> PackedWeight:
    return format_named(format).packed(shape, groups, numbers, [array.detach().cpu().numpy() for array in arrays])


UNPACK = register(
    "unpack(Tensor[] arrays, str format, int[] numbers, int[] shape, int groups) -> Tensor",
    lambda arrays, format, numbers, shape, groups: torch.from_numpy(
        format_named(format).unpack(_packed(format, shape, groups, numbers, arrays))
    ),
    lambda arrays, format, numbers, shape, groups: shape,
    lambda arrays, *_: next(array.dtype for array in arrays if array.is_floating_point()),
)
"""The dense weight of a layer, (O, I/groups, kh, kw) or (M, K), that is stored in a format of `pcc.sparsity.formats`,
which says what ``arrays`` and ``numbers`` are. Kernels take the weight as it is stored."""


def packed_weight(unpack: Node) -> PackedWeight:
    """The weight that a ``pcc::unpack`` of constants has in parts."""
    args = arguments(unpack)
    return _packed(
        args["format"],
        args["shape"],
        args["groups"],
        args["numbers"],
        [constant(array) for array in args["arrays"]],
    )


# ---- products, pooling, resampling ----


def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    parameter: Tensor | None = None,
) -> Tensor:
    return _finish(F.linear(x, weight, bias), residual, activation, parameter)


def _linear_shape(x: Tensor, weight: Tensor, *_: Any) -> tuple[int, ...]:
    if x.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise PccError(f"linear: input {tuple(x.shape)} does not fit weight {tuple(weight.shape)}")
    return x.shape[0], weight.shape[0]


LINEAR = register(
    "linear(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation, Tensor? parameter=None) -> Tensor",
    _linear,
    _linear_shape,
)
"""``activation(x @ weight.T + bias + residual)``; x (N, K), weight (M, K), ``parameter`` (M,) for activations that have
one a channel."""


def _matmul_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    fits = a.dim() == b.dim() == 3 and a.shape[2] == b.shape[1]
    if not fits or (a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])):
        raise PccError(f"matmul: {tuple(a.shape)} and {tuple(b.shape)} are no matrices to multiply")
    return max(a.shape[0], b.shape[0]), a.shape[1], b.shape[2]


MATMUL = register("matmul(Tensor a, Tensor b) -> Tensor", lambda a, b: torch.matmul(a, b).contiguous(), _matmul_shape)
"""The matrix product of (B, M, K) and (B, K, N), both computed or constant; a batch of 1 serves all."""


def _pool2d(
    x: Tensor,
    mode: str,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    height, width = window_output_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    reach = [(n - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 for a, n in enumerate((height, width))]
    # What the windows need beyond the declared padding in ceil mode; it never counts in an average.
    hang = (0, 0, *(max(0, reach[a] - x.shape[2 + a] - padding[a] - padding[a + 2]) for a in (0, 1)))
    if mode == "max":
        filled = padded(padded(x, padding, -torch.inf), hang, -torch.inf)
        return F.max_pool2d(filled, kernel, stride, 0, dilation)[:, :, :height, :width].contiguous()
    if mode == "sum":
        return _window_sums(x, kernel, stride, dilation)
    ones = padded(torch.ones_like(x[:1, :1]), padding, 1.0 if count_include_pad else 0.0)
    total, count = (_window_sums(padded(part, hang), kernel, stride, dilation) for part in (padded(x, padding), ones))
    return (total / count)[:, :, :height, :width].contiguous()


def _window_sums(x: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> Tensor:
    if dilation == [1, 1]:
        return F.avg_pool2d(x, kernel, stride, divisor_override=1)
    planes = F.conv2d(
        x.reshape(-1, 1, *x.shape[2:]), torch.ones((1, 1, *kernel), dtype=x.dtype), None, stride, 0, dilation
    )
    return planes.reshape(*x.shape[:2], *planes.shape[2:])


def _pool2d_shape(
    x: Tensor,
    mode: str,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> tuple[int, ...]:
    if mode not in ("max", "avg", "sum") or x.dim() != 4:
        raise PccError(f"pool2d: mode '{mode}' on {tuple(x.shape)} is not a pooling")
    if mode == "sum" and (any(padding) or any(taps not in (1, n) for taps, n in zip(kernel, x.shape[2:], strict=True))):
        raise PccError(f"pool2d: sums are of whole rows, columns or planes of {tuple(x.shape)}, not of {kernel}")
    return x.shape[0], x.shape[1], *window_output_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)


POOL2D = register(
    "pool2d(Tensor x, str mode, int[] kernel, int[] stride, int[] padding, int[] dilation, bool ceil_mode, bool "
    "count_include_pad) -> Tensor",
    _pool2d,
    _pool2d_shape,
)
"""``max`` or ``avg`` pooling as PyTorch means it; padding may be uneven, and averages dilated. ``sum`` adds up whole
rows, columns or planes: of whole numbers it is exact up to 2^24, and an average times their number is not."""


def _resize2d(x: Tensor, size: list[int], mode: str, align_corners: bool, scales: list[float] | None) -> Tensor:
    scale_h, scale_w = scales or (None, None)
    if mode == "nearest":
        return torch.ops.aten.upsample_nearest2d.default(x, size, scale_h, scale_w).contiguous()
    return torch.ops.aten.upsample_bilinear2d.default(x, size, align_corners, scale_h, scale_w).contiguous()


def _resize2d_shape(
    x: Tensor, size: list[int], mode: str, align_corners: bool, scales: list[float] | None
) -> tuple[int, ...]:
    if mode not in ("nearest", "bilinear") or x.dim() != 4:
        raise PccError(f"resize2d: mode '{mode}' on {tuple(x.shape)}: choose nearest or bilinear on NCHW")
    return x.shape[0], x.shape[1], *size


RESIZE2D = register(
    "resize2d(Tensor x, int[] size, str mode, bool align_corners, float[]? scales) -> Tensor",
    _resize2d,
    _resize2d_shape,
)
"""``nearest`` or ``bilinear`` to (height, width); ``scales`` are the factors the caller gave, where he gave factors."""


# ---- the rest ----


def _concat_shape(xs: list[Tensor], dim: int) -> tuple[int, ...]:
    shape = list(xs[0].shape)
    shape[dim] = sum(x.shape[dim] for x in xs)
    return tuple(shape)


CONCAT = register(
    "concat(Tensor[] xs, int dim) -> Tensor", lambda xs, dim: torch.cat(xs, dim).contiguous(), _concat_shape
)
"""Concatenation along one dimension."""

SOFTMAX = register(
    "softmax(Tensor x, int dim, bool log) -> Tensor",
    lambda x, dim, log: (F.log_softmax if log else F.softmax)(x, dim),
    lambda x, dim, log: x.shape,
)
"""Softmax, or its logarithm, over one dimension."""

ELEMENTWISE = register(
    "elementwise(Tensor[] xs, str expression) -> Tensor",
    lambda xs, expression: language.evaluate(language.parse(expression), xs),
    lambda xs, expression: torch.broadcast_shapes(*(x.shape for x in xs)),
)
"""An expression of `pcc.ir.expression` for each element; operands broadcast."""


CONVERT = register(
    "convert(Tensor x, str dtype) -> Tensor",
    lambda x, dtype: x.to(dtype_named(dtype).torch).contiguous(),
    lambda x, dtype: x.shape,
    lambda x, dtype: dtype_named(dtype).torch,
)
"""The same numbers as another element type of `pcc.dtype`: what the model returns as whole numbers or truth values
leaves the graph so."""


# ---- along one dimension ----


def _gather(x: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    batch, channels, size, inner = x.shape
    taps, places = index.shape[1:]
    at = (
        index.nan_to_num(0.0)
        .clamp(0, size - 1)
        .long()
        .reshape(index.shape[0], 1, taps * places, 1)
        .expand(batch, channels, -1, inner)
    )
    found = x.gather(2, at).reshape(batch, channels, taps, places, inner)
    return (found if weight is None else found * weight[:, None, :, :, None]).sum(2).contiguous()


def _gather_shape(x: Tensor, index: Tensor, weight: Tensor | None) -> tuple[int, ...]:
    fits = x.dim() == 4 and index.dim() == 3 and index.shape[0] in (1, x.shape[0])
    if not fits or (index.shape != weight.shape if weight is not None else index.shape[1] != 1):
        raise PccError(
            f"gather: index {tuple(index.shape)} and weight {weight if weight is None else tuple(weight.shape)} do not "
            f"fit {tuple(x.shape)}"
        )
    return x.shape[0], x.shape[1], index.shape[2], x.shape[3]


GATHER = register("gather(Tensor x, Tensor index, Tensor? weight) -> Tensor", _gather, _gather_shape)
"""``y[b, c, p, i] = sum over t of weight[b, t, p] * x[b, c, index[b, t, p], i]``: x (B, C, S, I), index and weight (B
or 1, T, P).

The index holds whole numbers as fp32, exact up to 2^24; one outside [0, S) reads the nearest element. Without weights T
is 1.
"""


def _top_k(x: Tensor, k: int, largest: bool, indices: bool) -> Tensor:
    # A stable order: of equal values the first comes first. NaN is the largest.
    values, places = torch.sort(x, dim=1, descending=largest, stable=True)
    return (places.to(x.dtype) if indices else values)[:, :k].contiguous()


def _top_k_shape(x: Tensor, k: int, largest: bool, indices: bool) -> tuple[int, ...]:
    if x.dim() != 3 or not 0 < k <= x.shape[1]:
        raise PccError(f"top_k: {k} values of {tuple(x.shape)}")
    return x.shape[0], k, x.shape[2]


TOP_K = register("top_k(Tensor x, int k, bool largest, bool indices) -> Tensor", _top_k, _top_k_shape)
"""The k largest (or smallest) values of each column of (O, S, I), in order, or their positions as fp32; of equal ones
the first."""


_SCANS = {
    "sum": torch.cumsum,
    "prod": torch.cumprod,
    "max": lambda x, dim: torch.cummax(x, dim).values,
    "min": lambda x, dim: torch.cummin(x, dim).values,
}

SCAN = register("scan(Tensor x, str mode) -> Tensor", lambda x, mode: _SCANS[mode](x, 1), lambda x, mode: x.shape)
"""Running ``sum``, ``prod``, ``max`` or ``min`` down the columns of (O, S, I)."""


# ---- by place ----


def _scatter(x: Tensor, index: Tensor, updates: Tensor, mode: str) -> Tensor:
    at = index.nan_to_num(0.0).clamp(0, x.shape[1] - 1).long()
    return x.scatter(1, at, updates) if mode == "set" else x.scatter_reduce(1, at, updates, _REDUCTIONS[mode])


def _scatter_shape(x: Tensor, index: Tensor, updates: Tensor, mode: str) -> tuple[int, ...]:
    if (
        x.dim() != 2
        or index.shape != updates.shape
        or index.shape[:1] != x.shape[:1]
        or mode not in ("set", *_REDUCTIONS)
    ):
        raise PccError(
            f"scatter: mode '{mode}' of {tuple(index.shape)} places and {tuple(updates.shape)} values for "
            f"{tuple(x.shape)}"
        )
    return tuple(x.shape)


_REDUCTIONS = {"sum": "sum", "prod": "prod", "max": "amax", "min": "amin"}

SCATTER = register("scatter(Tensor x, Tensor index, Tensor updates, str mode) -> Tensor", _scatter, _scatter_shape)
"""``x`` (R, S) with ``x[r, index[r, p]]`` set to ``updates[r, p]``, or its ``sum``, ``prod``, ``max`` or ``min`` with
it, p after p: index and updates (R, P).

The index holds whole numbers as fp32; one outside [0, S) is the nearest place.
"""


def _nms(boxes: Tensor, scores: Tensor, count: int, overlap: float, threshold: float) -> Tensor:
    chosen = scores.new_full((*scores.shape[:2], count), -1.0)
    for image in range(scores.shape[0]):
        top, left, bottom, right = boxes[image]
        areas = (bottom - top) * (right - left)
        for kind in range(scores.shape[1]):
            remaining = scores[image, kind].where(scores[image, kind] > threshold, -torch.inf)
            for rank in range(count):
                best = int(remaining.argmax())
                if remaining[best] == -torch.inf:
                    break
                chosen[image, kind, rank] = best
                height = torch.minimum(bottom, bottom[best]) - torch.maximum(top, top[best])
                width = torch.minimum(right, right[best]) - torch.maximum(left, left[best])
                shared = height.clamp(0) * width.clamp(0)
                remaining = remaining.masked_fill(shared / (areas + areas[best] - shared) > overlap, -torch.inf)
                remaining[best] = -torch.inf
    return chosen


def _nms_shape(boxes: Tensor, scores: Tensor, count: int, overlap: float, threshold: float) -> tuple[int, ...]:
    if boxes.dim() != 3 or scores.dim() != 3 or boxes.shape != (scores.shape[0], 4, scores.shape[2]) or count < 1:
        raise PccError(f"nms: {count} of boxes {tuple(boxes.shape)} with scores {tuple(scores.shape)}")
    return *scores.shape[:2], count


NMS = register(
    "nms(Tensor boxes, Tensor scores, int count, float overlap, float threshold) -> Tensor", _nms, _nms_shape
)
"""Greedy non-maximum suppression: of each image and class the places of at most ``count`` boxes, best first, then -1:
boxes (B, 4, N) as top, left, bottom, right; scores (B, C, N); gives (B, C, count). Boxes count with scores above
``threshold``; intersection over union above ``overlap`` takes the worse away."""


# ---- what stays ATen ----

_aten: Any = torch.ops.aten

RESHAPE, PERMUTE, SLICE, EXPAND, PAD = (
    _aten.reshape.default,
    _aten.permute.default,
    _aten.slice.Tensor,
    _aten.expand.default,
    _aten.constant_pad_nd.default,
)
"""Data movement in a canonical graph."""

BATCH_NORM = _aten.batch_norm.default
"""Batch norm in a canonical graph, with fixed statistics; fold-batchnorm leaves none."""

CANONICAL.update({RESHAPE, PERMUTE, SLICE, EXPAND, PAD, BATCH_NORM})
