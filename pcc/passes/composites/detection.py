"""What detectors are made of besides convolutions: pcc's own composite operators, and torchvision's, which become
these."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pcc.ir.register import COMPOSITE, REFERENCES
from pcc.ir.sampling import DEFORM_CONV2D, ROI_ALIGN
from pcc.passes.canonical import CannotCompile


def deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    padding, steps, apart = [pad_h, pad_w, pad_h, pad_w], [stride_h, stride_w], [dilation_h, dilation_w]
    return DEFORM_CONV2D(
        input, weight, offset, mask if use_mask else None, bias, steps, padding, apart, groups, offset_groups
    )


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """``rois`` (K, 5): the image's number, then the box."""
    if sampling_ratio < 1:
        raise CannotCompile(
            "sampling_ratio < 1, which takes the more samples the larger a box is: give a number of samples, such as 2"
        )
    return ROI_ALIGN(
        input, rois[:, 1:], rois[:, 0], spatial_scale, [pooled_height, pooled_width], sampling_ratio, aligned
    )


COMPOSITES = {operator: REFERENCES[operator] for operator in COMPOSITE}

NAMED: dict[str, Callable[..., Any]] = {
    "torchvision::deform_conv2d": deform_conv2d,
    "torchvision::roi_align": roi_align,
}
"""By name: torchvision need not be there."""
