"""Resampling by ONNX's rules, of which there are many. Along one axis each of them is a matrix from inputs to outputs,
made here by the specification's formulas. Where PyTorch's nearest or bilinear interpolation has the same matrices, it
is that operator; else elements are picked by number, or the matrix is multiplied with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import torch
from torch import Tensor

from pcc.frontend.onnx.emitter import Emitter, Refused, Value, check_size, dtype, integers, known, rank, shape
from pcc.frontend.onnx.rule import Rule
from pcc.frontend.onnx.rules.moves import axes_of, pick

_aten: Any = torch.ops.aten

_OPSET_10 = "up where the scale is less than 1, else down"
"""How Resize rounds places there, which has no ``nearest_mode`` yet."""


@dataclass(frozen=True)
class _Axis:
    """How one axis is resampled."""

    have: int
    want: int
    scale: float
    """want / have before rounding."""
    region: tuple[float, float]
    """What of the input is taken, in parts of it, for ``tf_crop_and_resize``."""


@dataclass(frozen=True)
class _Method:
    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def upsample(
    emit: Emitter,
    x: Value,
    scales_input: Value | None = None,
    *,
    mode: str = "nearest",
    scales: Sequence[float] | None = None,
) -> Value:
    """What Resize was called up to opset 9."""
    factors = known(scales_input, "its scales are") if scales_input is not None else torch.tensor(scales or [])
    return resize(emit, x, None, factors, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def resize(
    emit: Emitter,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str | None = None,
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str | None = None,
) -> Value:
    if emit.opset < 11 and scales is None:  # opset 10 has the scales where the region is since
        roi, scales = None, roi
        coordinate_transformation_mode, nearest_mode = "asymmetric", _OPSET_10
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    dims = axes_of(axes if axes is not None else range(rank(x)), rank(x))
    method = _Method(
        mode,
        coordinate_transformation_mode or "half_pixel",
        nearest_mode or "round_prefer_floor",
        cubic_coeff_a,
        bool(exclude_outside),
        bool(antialias),
        extrapolation_value,
    )
    region = known(roi, "its region is") if method.coordinates == "tf_crop_and_resize" else None
    resampled = _axes(x, dims, region, scales, sizes, keep_aspect_ratio_policy)
    check_size([resampled[dim].want if dim in resampled else have for dim, have in enumerate(shape(x))])
    if not dtype(x).is_floating_point and mode != "nearest":
        raise Refused(f"mode={mode} of {dtype(x)}")
    changed = {dim: axis for dim, axis in resampled.items() if not _is_identity(axis, method)}
    if not changed:
        return x
    if mode == "nearest":
        return _nearest(emit, x, changed, method)
    matrices = {dim: _matrix(axis, method) for dim, axis in changed.items()}
    direct = _bilinear(emit, x, changed, matrices) if mode == "linear" else None
    if direct is not None:
        return direct
    for dim, (matrix, outside) in matrices.items():
        x = _multiplied(emit, x, dim, matrix, outside * method.extrapolation)
    return x


def _axes(
    x: Value, dims: list[int], region: Tensor | None, scales: Value | None, sizes: Value | None, policy: str
) -> dict[int, _Axis]:
    have = shape(x)
    wanted = integers(sizes, "its sizes are") or []
    constants = known(scales, "its scales are")
    factors = [float(factor) for factor in constants.flatten()] if constants is not None else []
    corners = (
        [float(corner) for corner in region.flatten()]
        if region is not None and region.numel()
        else [0.0] * len(dims) + [1.0] * len(dims)
    )
    if len(corners) != 2 * len(dims):
        raise Refused(f"a region of {len(corners)} numbers for {len(dims)} axes")
    if wanted:
        if len(wanted) != len(dims):
            raise Refused(f"sizes={wanted} for {len(dims)} axes")
        ratios = [want / have[dim] for want, dim in zip(wanted, dims, strict=True)]
        if policy == "stretch":
            factors = ratios
        elif policy in ("not_larger", "not_smaller"):
            factor = min(ratios) if policy == "not_larger" else max(ratios)
            factors = [factor] * len(dims)
            wanted = [int(factor * have[dim] + 0.5) for dim in dims]
        else:
            raise Refused(f"keep_aspect_ratio_policy={policy}")
    elif len(factors) == len(dims):
        spans = [corners[len(dims) + place] - corners[place] for place in range(len(dims))]
        wanted = [
            floor(torch.tensor(have[dim] * span, dtype=torch.float32) * factor)
            for dim, span, factor in zip(dims, spans, factors, strict=True)
        ]
    else:
        raise Refused(f"scales={factors} for {len(dims)} axes")
    if any(want < 1 for want in wanted) or any(not factor > 0 for factor in factors):
        raise Refused(f"sizes {wanted} by scales {factors}")
    return {
        dim: _Axis(have[dim], wanted[place], factors[place], (corners[place], corners[len(dims) + place]))
        for place, dim in enumerate(dims)
    }


def _is_identity(axis: _Axis, method: _Method) -> bool:
    return (
        axis.have == axis.want
        and axis.scale == 1
        and (method.coordinates != "tf_crop_and_resize" or axis.region == (0.0, 1.0))
    )


def _coordinates(axis: _Axis, mode: str, dtype: torch.dtype) -> Tensor:
    """The place of each output in the input, (want,), by the specification's formulas."""
    place = torch.arange(axis.want, dtype=dtype)
    match mode:
        case "pytorch_half_pixel" if axis.want == 1:
            return place
        case "half_pixel" | "pytorch_half_pixel":
            return (place + 0.5) / axis.scale - 0.5
        case "align_corners":
            if abs(axis.have * axis.scale - axis.want) > 1e-3:  # ONNX's tests and ONNX Runtime disagree
                raise Refused(
                    f"align_corners with a scale of {axis.scale:g}, which makes no whole size of {axis.have}: give "
                    "sizes in place of scales"
                )
            return place * (axis.have - 1) / max(1, axis.want - 1)
        case "asymmetric":
            return place / axis.scale
        case "half_pixel_symmetric":
            exact = axis.have * axis.scale
            offset = axis.have / 2 * (1 - axis.want / exact)
            return offset + (place + 0.5) / axis.scale - 0.5
        case "tf_half_pixel_for_nn":
            return (place + 0.5) / axis.scale
        case "tf_crop_and_resize":
            begin, end = axis.region
            if axis.want == 1:
                return place + 0.5 * (begin + end) * (axis.have - 1)
            return begin * (axis.have - 1) + place * (end - begin) * (axis.have - 1) / (axis.want - 1)
        case _:
            raise Refused(f"coordinate_transformation_mode={mode}")


def _nearest(emit: Emitter, x: Value, changed: dict[int, _Axis], method: _Method) -> Value:
    """Places are computed in fp32, as PyTorch and ONNX Runtime do it: a little less than 7 and 7 are different
    elements."""
    places: dict[int, list[int]] = {}
    for dim, axis in changed.items():
        nearest = method.nearest if method.nearest != _OPSET_10 else "ceil" if axis.scale < 1 else "floor"
        at = _coordinates(axis, method.coordinates, torch.float32).tolist()
        if method.coordinates == "tf_crop_and_resize" and any(not 0 <= place <= axis.have - 1 for place in at):
            raise Refused("a region that leaves the image")
        places[dim] = [min(max(_rounded(place, nearest), 0), axis.have - 1) for place in at]
    if rank(x) == 4 and set(changed) <= {2, 3} and dtype(x).is_floating_point:
        size = [len(places.get(dim, range(shape(x)[dim]))) for dim in (2, 3)]
        sampled = {
            dim: _aten.upsample_nearest1d.default(torch.arange(float(shape(x)[dim])).reshape(1, 1, -1), [size[dim - 2]])
            for dim in changed
        }
        if all(sampled[dim].flatten().tolist() == places[dim] for dim in changed):
            return emit.call(_aten.upsample_nearest2d.default, x, size)
    for dim in changed:
        x = pick(emit, x, dim, places[dim])
    return x


def _rounded(place: float, mode: str) -> int:
    match mode:
        case "round_prefer_floor":
            return -floor(-(place - 0.5)) if place - floor(place) == 0.5 else floor(place + 0.5)
        case "round_prefer_ceil":
            return floor(place + 0.5)
        case "floor":
            return floor(place)
        case "ceil":
            return -floor(-place)
        case _:
            raise Refused(f"nearest_mode={mode}")


def _matrix(axis: _Axis, method: _Method) -> tuple[Tensor, Tensor]:
    """What each output (row) takes of each input (column), and which outputs lie outside, 1 or 0. Edges repeat."""
    if method.mode not in ("linear", "cubic"):
        raise Refused(f"mode={method.mode}")
    matrix, outside = (
        torch.zeros(axis.want, axis.have, dtype=torch.float64),
        torch.zeros(axis.want, dtype=torch.float64),
    )
    stretch = min(axis.scale, 1.0) if method.antialias else 1.0
    reach = (1 if method.mode == "linear" else 2) / stretch
    for row, at in enumerate(_coordinates(axis, method.coordinates, torch.float64).tolist()):
        if method.coordinates == "tf_crop_and_resize" and not 0 <= at <= axis.have - 1:
            outside[row] = 1
            continue
        taps = (
            range(floor(at - reach) + 1, floor(at + reach) + 1)
            if method.antialias
            else range(floor(at) - int(reach) + 1, floor(at) + int(reach) + 1)
        )
        weights = [_weight((at - tap) * stretch, method) for tap in taps]
        if method.exclude_outside:
            weights = [weight if 0 <= tap < axis.have else 0.0 for tap, weight in zip(taps, weights, strict=True)]
        total = sum(weights) if method.antialias or method.exclude_outside else 1.0
        for tap, weight in zip(taps, weights, strict=True):
            matrix[row, min(max(tap, 0), axis.have - 1)] += weight / total
    return matrix, outside


def _weight(distance: float, method: _Method) -> float:
    """Of an input at a distance: a hat, or Keys' cubic."""
    distance, a = abs(distance), method.cubic
    if method.mode == "linear":
        return max(0.0, 1 - distance)
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a if distance < 2 else 0.0


def _bilinear(
    emit: Emitter, x: Value, changed: dict[int, _Axis], matrices: dict[int, tuple[Tensor, Tensor]]
) -> Value | None:
    """PyTorch's interpolation, if it multiplies with these matrices."""
    if rank(x) != 4 or not set(changed) <= {2, 3} or any(bool(outside.any()) for _, outside in matrices.values()):
        return None
    size = [changed[dim].want if dim in changed else shape(x)[dim] for dim in (2, 3)]
    scales = [changed[dim].scale if dim in changed else 1.0 for dim in (2, 3)]
    for align, factors in ((False, [None, None]), (True, [None, None]), (False, scales)):
        if all(
            torch.allclose(_sampled(changed[dim], align, factors[dim - 2]), matrices[dim][0], atol=1e-6)
            for dim in changed
        ):
            return emit.call(
                _aten.upsample_bilinear2d.default, x, size, align, *(factors if factors[0] is not None else ())
            )
    return None


def _sampled(axis: _Axis, align: bool, scale: float | None) -> Tensor:
    """The matrix of PyTorch's interpolation along one axis."""
    return _aten.upsample_linear1d.default(torch.eye(axis.have, dtype=torch.float64)[None], [axis.want], align, scale)[
        0
    ].T


def _multiplied(emit: Emitter, x: Value, dim: int, matrix: Tensor, outside: Tensor) -> Value:
    """``x`` with the matrix applied along one dimension, and a constant added where that is outside."""
    last = rank(x) - 1
    weight = emit.called(matrix.to(dtype(x)), f"{emit.name}.axis{dim}")
    bias = outside.to(dtype(x)) if bool(outside.any()) else None
    if dim != last:
        x = emit.call(_aten.transpose.int, x, dim, last)
    result = emit.call(_aten.linear.default, x, weight, bias)
    return emit.call(_aten.transpose.int, result, dim, last) if dim != last else result


RULES: dict[str, Rule] = {"Resize": resize, "Upsample": upsample}
