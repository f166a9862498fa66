"""Operators of detectors that sample an image at computed points: deformable convolution and RoIAlign. They are
composite: grid_sample and plain layers.

Importing this module registers them; torchvision's operators and ONNX's become these.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcc.errors import PccError
from pcc.ir.ops import window_output_size
from pcc.ir.register import register


def _sampled(x: Tensor, rows: Tensor, columns: Tensor, padding: str) -> Tensor:
    """Bilinear samples of (N, C, H, W) at the points (rows, columns), (N, P, Q) in pixels: (N, C, P, Q)."""
    height, width = x.shape[2:]
    grid = torch.stack([(columns * 2 + 1) / width - 1, (rows * 2 + 1) / height - 1], -1)
    return F.grid_sample(x, grid, "bilinear", padding, align_corners=False)


def _deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    """Each tap's image of samples is a channel of its own, then a convolution by 1x1."""
    batch, channels, height, width = x.shape
    (filters, inputs, kh, kw), (out_height, out_width) = weight.shape, offset.shape[2:]
    taps, images = kh * kw, batch * offset_groups
    moved = offset.reshape(images, taps, 2, out_height, out_width)
    rows = (torch.arange(kh) * dilation[0] - padding[0]).repeat_interleave(kw).reshape(taps, 1, 1) + (
        torch.arange(out_height) * stride[0]
    ).reshape(-1, 1)
    columns = (torch.arange(kw) * dilation[1] - padding[1]).repeat(kh).reshape(taps, 1, 1) + torch.arange(
        out_width
    ) * stride[1]
    down, right = (
        (moved[:, :, axis] + at).reshape(images, taps * out_height, out_width)
        for axis, at in enumerate((rows, columns))
    )
    samples = _sampled(x.reshape(images, channels // offset_groups, height, width), down, right, "zeros")
    if mask is not None:
        samples = samples * mask.reshape(images, 1, taps * out_height, out_width)
    planes = samples.reshape(batch, channels * taps, out_height, out_width)
    return F.conv2d(planes, weight.reshape(filters, inputs * taps, 1, 1), bias, groups=groups)


def _deform_conv2d_shape(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    offset_groups: int,
) -> tuple[int, ...]:
    if (
        x.dim() != 4
        or weight.dim() != 4
        or x.shape[1] != weight.shape[1] * groups
        or weight.shape[0] % groups
        or x.shape[1] % offset_groups
    ):
        raise PccError(
            f"deform_conv2d: input {tuple(x.shape)} does not fit weight {tuple(weight.shape)} with groups={groups}, "
            f"offset_groups={offset_groups}"
        )
    size = window_output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    taps = offset_groups * weight.shape[2] * weight.shape[3]
    wanted = {"offset": (x.shape[0], 2 * taps, *size), "mask": (x.shape[0], taps, *size)}
    for (name, shape), tensor in zip(wanted.items(), (offset, mask), strict=True):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise PccError(f"deform_conv2d: {name} {tuple(tensor.shape)}, not {shape}")
    return x.shape[0], weight.shape[0], *size


DEFORM_CONV2D = register(
    "deform_conv2d(Tensor x, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, int[] stride, int[] padding, "
    "int[] dilation, int groups,"
    " int offset_groups) -> Tensor",
    _deform_conv2d,
    _deform_conv2d_shape,
    composite=True,
)
"""Deformable convolution (Dai et al. 2017; with ``mask`` version 2, Zhu et al. 2019): each tap reads where ``offset``
moves it to, bilinearly, zeros outside.

x (N, C, H, W), weight (O, C/groups, kh, kw), offset (N, offset_groups * kh * kw * 2, OH, OW), each pair (rows,
columns); mask (N, offset_groups * kh * kw, OH, OW); padding (top, left, bottom, right).
"""


def _roi_align(
    x: Tensor, boxes: Tensor, images: Tensor, scale: float, size: list[int], samples: int, aligned: bool
) -> Tensor:
    """The images lie one below the other, so that a point may be in any of them."""
    batch, channels, height, width = x.shape
    edges = boxes * scale - (0.5 if aligned else 0.0)
    points, inside = [], []
    for axis, extent in ((1, height), (0, width)):
        first, length = edges[:, axis, None], edges[:, axis + 2, None] - edges[:, axis, None]
        if not aligned:
            length = length.clamp(min=1.0)
        count = size[1 - axis] * samples
        at = first + length * ((torch.arange(count) + 0.5) / count)
        inside.append(((at >= -1) & (at <= extent)).to(x.dtype))
        points.append(at.clamp(0, extent - 1))
    grid = len(boxes), size[0] * samples, size[1] * samples
    rows, columns = points[0] + images[:, None] * float(height), points[1]
    stacked = x.transpose(0, 1).reshape(1, channels, batch * height, width)
    down, right = (part.expand(grid).reshape(1, -1, grid[2]) for part in (rows[:, :, None], columns[:, None]))
    found = _sampled(stacked, down, right, "border")
    found = found * (inside[0][:, :, None] * inside[1][:, None]).reshape(1, 1, -1, grid[2])
    return F.avg_pool2d(found, samples).reshape(channels, len(boxes), *size).transpose(0, 1)


def _roi_align_shape(
    x: Tensor, boxes: Tensor, images: Tensor, scale: float, size: list[int], samples: int, aligned: bool
) -> Sequence[int]:
    if x.dim() != 4 or boxes.dim() != 2 or boxes.shape[1] != 4 or images.shape != boxes.shape[:1] or samples < 1:
        raise PccError(
            f"roi_align: {samples} samples of boxes {tuple(boxes.shape)} in images {tuple(images.shape)} of "
            f"{tuple(x.shape)}"
        )
    return boxes.shape[0], x.shape[1], *size


ROI_ALIGN: Any = register(
    "roi_align(Tensor x, Tensor boxes, Tensor images, float scale, int[] size, int samples, bool aligned) -> Tensor",
    _roi_align,
    _roi_align_shape,
    composite=True,
)
"""RoIAlign (He et al. 2017): the mean of ``samples`` x ``samples`` bilinear samples of each cell of each box: x (N, C,
H, W); boxes (K, 4) as left, top, right, bottom, times ``scale`` in pixels; images (K,), the number of each box's image;
gives (K, C, *size). Samples outside of an image by more than a pixel are 0. ``aligned`` takes pixels' centres at
halves; without it boxes are at least one pixel large."""
