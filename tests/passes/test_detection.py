"""torchvision's operators for detectors, known by name, against loops in float64 that say what they are. torchvision
itself is not needed."""

import itertools
from collections.abc import Callable
from math import floor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from pcc.errors import PccError
from pcc.frontend.supported import check_supported
from pcc.frontend.torch_module import import_module
from pcc.ir.verify import run_graph
from pcc.passes.canonicalize import Canonicalize
from pcc.passes.decompose import Decompose
from pcc.passes.fold_constants import FoldConstants


def _sample(plane: Tensor, row: float, column: float) -> float:
    """Bilinear, zeros outside."""
    low = floor(row), floor(column)
    total = 0.0
    for r, c in itertools.product((low[0], low[0] + 1), (low[1], low[1] + 1)):
        if 0 <= r < plane.shape[0] and 0 <= c < plane.shape[1]:
            total += float(plane[r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def deform_conv2d(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *geometry: int) -> Tensor:
    sh, sw, ph, pw, dh, dw, groups, og, use = geometry
    (filters, inputs, kh, kw), (batch, _, height, width) = weight.shape, offset.shape
    y = torch.zeros(batch, filters, height, width, dtype=torch.float64)
    for n, o, i, u, v, r, c in itertools.product(*map(range, (batch, filters, inputs, kh, kw, height, width))):
        channel = o // (filters // groups) * inputs + i
        tap = channel // (input.shape[1] // og) * kh * kw + u * kw + v
        row, column = (
            r * sh - ph + u * dh + float(offset[n, 2 * tap, r, c]),
            c * sw - pw + v * dw + float(offset[n, 2 * tap + 1, r, c]),
        )
        y[n, o, r, c] += (
            float(weight[o, i, u, v])
            * _sample(input[n, channel], row, column)
            * (float(mask[n, tap, r, c]) if use else 1.0)
        )
    return (y + bias[:, None, None]).float()


def roi_align(
    input: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, aligned: bool
) -> Tensor:
    y = torch.zeros(len(rois), input.shape[1], height, width, dtype=torch.float64)
    for k, c, i, j, u, v in itertools.product(*map(range, (*y.shape, samples, samples))):
        image, left, top, right, bottom = rois[k].double().tolist()
        left, top, right, bottom = (side * scale - 0.5 * aligned for side in (left, top, right, bottom))
        tall, wide = (side if aligned else max(side, 1.0) for side in (bottom - top, right - left))
        row, column = top + (i + (u + 0.5) / samples) * tall / height, left + (j + (v + 0.5) / samples) * wide / width
        plane = input[int(image), c]
        if -1 <= row <= plane.shape[0] and -1 <= column <= plane.shape[1]:
            y[k, c, i, j] += (
                _sample(plane, min(max(row, 0.0), plane.shape[0] - 1), min(max(column, 0.0), plane.shape[1] - 1))
                / samples**2
            )
    return y.float()


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    raise NotImplementedError


_SCHEMAS = {
    "deform_conv2d": "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w,"
    " SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width,"
    " int sampling_ratio, bool aligned) -> Tensor",
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""As torchvision 0.28 has them."""


@pytest.fixture(scope="module", autouse=True)
def torchvision() -> Any:
    if hasattr(torch.ops.torchvision, "nms"):
        return
    fakes: dict[str, Callable[..., Tensor]] = {
        "deform_conv2d": lambda input, weight, offset, *_: input.new_empty(
            offset.shape[0], weight.shape[0], *offset.shape[2:]
        ),
        "roi_align": lambda input, rois, scale, height, width, *_: input.new_empty(
            rois.shape[0], input.shape[1], height, width
        ),
        "nms": lambda dets, *_: dets.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64),
    }
    for function in (deform_conv2d, roi_align, nms):
        name = f"torchvision::{function.__name__}"
        torch.library.define(name, _SCHEMAS[function.__name__])
        torch.library.impl(name, "CompositeExplicitAutograd", function)
        torch.library.register_fake(name, fakes[function.__name__])


class Net(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def canonical(function: Callable[..., Tensor], *inputs: Tensor) -> GraphModule:
    graph_module = import_module(Net(function), inputs)
    for step in (Decompose(), Canonicalize(), FoldConstants()):
        step(graph_module)
    check_supported(graph_module)
    return graph_module


def agree(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    torch.testing.assert_close(
        run_graph(canonical(function, *inputs), inputs)[0], function(*inputs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "offset_groups", "mask"),
    [
        ((1, 1), (1, 1), (1, 1), 1, 1, True),
        ((2, 1), (0, 2), (1, 2), 2, 1, False),
        ((1, 2), (1, 0), (2, 1), 1, 2, True),
        ((3, 3), (2, 2), (1, 1), 2, 4, True),
    ],
)
def test_deformable_convolution(
    stride: Any, padding: Any, dilation: Any, groups: int, offset_groups: int, mask: bool
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 7, 6), torch.randn(6, 4 // groups, 3, 2), torch.randn(6)
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    ]
    offset, factors = torch.randn(2, offset_groups * 12, *size) * 3, torch.rand(2, offset_groups * 6, *size)
    options = *stride, *padding, *dilation, groups, offset_groups, mask
    operator: Any = torch.ops.torchvision.deform_conv2d
    agree(lambda x, offset, factors: operator(x, weight, offset, factors, bias, *options), x, offset, factors)


@pytest.mark.parametrize("aligned", [True, False])
def test_boxes_of_several_images(aligned: bool) -> None:
    boxes = torch.tensor(
        [[0, 1.0, 2.0, 9.0, 8.0], [1, -8.0, -3.0, 30.0, 40.0], [1, 3.0, 3.0, 3.2, 3.1], [0, 12.0, 10.0, 40.0, 30.0]]
    )
    operator: Any = torch.ops.torchvision.roi_align
    agree(lambda x, boxes: operator(x, boxes, 0.5, 3, 2, 2, aligned), torch.randn(2, 3, 8, 5), boxes)


@pytest.mark.parametrize(
    ("function", "inputs", "message"),
    [
        (
            lambda x, b: torch.ops.torchvision.roi_align(x, b, 1.0, 3, 2, -1, True),
            ((1, 2, 5, 5), (3, 5)),
            "give a number of samples, such as 2",
        ),
        (lambda b, s: torch.ops.torchvision.nms(b, s, 0.5), ((6, 4), (6,)), "torch.ops.pcc.nms.* gives a fixed number"),
    ],
)
def test_what_depends_on_values_is_refused(function: Callable[..., Tensor], inputs: Any, message: str) -> None:
    with pytest.raises(PccError, match=message):
        canonical(function, *(torch.rand(shape) for shape in inputs))
