"""What detectors have besides convolutions: deformable ones, RoIAlign, and suppression at the end."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, number, shape
from pcc.frontend.onnx.marks import Rows
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.arithmetic import convert
from pcc.frontend.onnx.rules.windows import kernel_of, window
from pcc.ir.ops import NMS, SCATTER
from pcc.ir.sampling import DEFORM_CONV2D, ROI_ALIGN

_aten: Any = torch.ops.aten


def non_max_suppression(
    emit: Emitter,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    overlap: Value | None = None,
    threshold: Value | None = None,
    *,
    center_point_box: int = 0,
) -> Value:
    """Rows (image, class, box) of the boxes that stay. Where ONNX has as many rows as there are, the model gives all
    that there could be: those that are none come last and hold -1, by which the last element is gathered; their number
    without these is an output more, ``NAME_count``.

    boxes (B, N, 4): two opposite corners (y, x), or centre (x, y) and size; scores (B, C, N).
    """
    (batch, classes, size), limit = (
        shape(scores),
        int(number(most, "its number of boxes is")) if most is not None else 0,
    )
    count = min(limit, size)
    if count < 1:
        raise Refused(f"max_output_boxes_per_class={limit}, so that no box would ever stay")
    sides = emit.call(_aten.transpose.int, boxes, 1, 2)
    a, b = (emit.call(_aten.slice.Tensor, sides, 1, begin, begin + 2) for begin in (0, 2))
    if center_point_box:
        half = emit.call(_aten.mul.Tensor, b, 0.5)
        low, high = emit.call(_aten.sub.Tensor, a, half), emit.call(_aten.add.Tensor, a, half)
    else:
        low, high = emit.call(_aten.minimum.default, a, b), emit.call(_aten.maximum.default, a, b)
    most_overlap, least_score = (
        default if value is None else float(number(value, f"its {what} is"))
        for value, what, default in ((overlap, "IoU threshold", 0.0), (threshold, "score threshold", float("-inf")))
    )
    chosen = emit.call(NMS, emit.call(_aten.cat.default, [low, high], 1), scores, count, most_overlap, least_score)
    rows = batch * classes * count
    flat = emit.call(_aten.reshape.default, chosen, [1, rows])
    stays = emit.call(_aten.ge.Scalar, flat, 0)
    place = emit.call(_aten.sub.Tensor, emit.call(_aten.cumsum.default, convert(emit, stays, torch.float32), 1), 1.0)
    place = emit.call(_aten.where.self, stays, place, torch.tensor(float(rows)))  # the others into a row behind
    numbers = torch.arange(batch * classes, dtype=torch.float32).repeat_interleave(count)
    table = torch.stack([numbers // classes, numbers % classes])
    values = emit.call(_aten.cat.default, [table, flat], 0)
    moved = emit.call(
        SCATTER, torch.full((3, rows + 1), -1.0), emit.call(_aten.expand.default, place, [3, rows]), values, "set"
    )
    number_of = emit.call(_aten.reshape.default, emit.call(_aten.sum.dim_IntList, stays, [1]), [1])
    found = emit.call(_aten.transpose.int, emit.call(_aten.slice.Tensor, moved, 1, 0, rows), 0, 1)
    found = convert(emit, found, torch.int64)
    if isinstance(found, Tensor):
        return found[: int(number_of)]
    emit.marks[found] = Rows(0, number_of, emit.return_too(f"{emit.name}_count", number_of))
    return found


def deform_conv(
    emit: Emitter,
    x: Value,
    weight: Value,
    offset: Value,
    bias: Value | None = None,
    mask: Value | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    w = window(x, kernel_of(weight, kernel_shape, x), strides, dilations, pads=pads)
    if w.axes != 2:
        raise Refused(f"a deformable convolution of {shape(x)}; pcc compiles those of images")
    (top, bottom), (left, right) = w.pads
    return emit.call(
        DEFORM_CONV2D,
        x,
        weight,
        offset,
        mask,
        bias,
        w.stride,
        [top, left, bottom, right],
        w.dilation,
        group,
        offset_group,
    )


def roi_align(
    emit: Emitter,
    x: Value,
    boxes: Value,
    images: Value,
    *,
    coordinate_transformation_mode: str = "",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """Opset 16 gave the coordinates a mode, which is the other one by default."""
    transformation = coordinate_transformation_mode or ("half_pixel" if emit.opset >= 16 else "output_half_pixel")
    if mode != "avg" or sampling_ratio < 1 or transformation not in ("half_pixel", "output_half_pixel"):
        raise Refused(
            f"mode={mode}, sampling_ratio={sampling_ratio}; pcc has averages of a number of samples, the same for all "
            "boxes: export it with 2"
        )
    number_of = convert(emit, images, torch.float32)
    return emit.call(
        ROI_ALIGN,
        x,
        boxes,
        number_of,
        spatial_scale,
        [output_height, output_width],
        sampling_ratio,
        transformation == "half_pixel",
    )


RULES: dict[str, Rule] = {"NonMaxSuppression": non_max_suppression, "DeformConv": deform_conv, "RoiAlign": roi_align}
