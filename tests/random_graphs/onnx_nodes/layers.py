"""Nodes that are layers: windows, products, norms."""

from fractions import Fraction
from typing import Any

import numpy as np

from tests.random_graphs.builder import Unfit
from tests.random_graphs.onnx_builder import OnnxBuilder, broadcast, scalar, whole

# ---- windows ----


def _padding(b: OnnxBuilder, count: int, most: int) -> dict[str, Any]:
    match b.random.randrange(6):
        case 0:
            return {"auto_pad": "SAME_UPPER"}
        case 1:
            return {"auto_pad": "SAME_LOWER"}
        case 2:
            return {"auto_pad": "VALID"}
        case 3:
            return {}
        case _:
            return {"pads": [b.random.randint(0, most) for _ in range(2 * count)]}


def conv(b: OnnxBuilder) -> None:
    x = b.real(3, 4, 4)
    value = b.values[x]
    channels, count = value.shape[1], value.ndim - 2
    group = b.random.choice([1, 1, b.divisor(channels), channels])
    kernel = [b.random.choice([1, 2, 3, 3, 5]) for _ in range(count)]
    attributes: dict[str, Any] = {"group": group, **_padding(b, count, 2)}
    if b.flag():
        attributes["strides"] = [b.size(3) for _ in range(count)]
    if b.flag() and "auto_pad" not in attributes:
        attributes["dilations"] = [b.size(2) for _ in range(count)]
    if b.flag():
        attributes["kernel_shape"] = kernel
    filters = group * b.size(4)
    b.add(
        "Conv",
        x,
        b.noise(filters, channels // group, *kernel) * np.float32(0.4),
        b.noise(filters) if b.flag() else None,
        **attributes,
    )


def conv_transpose(b: OnnxBuilder) -> None:
    x = b.real(3, 4)
    value = b.values[x]
    channels, count = value.shape[1], value.ndim - 2
    group = b.random.choice([1, b.divisor(channels)])
    kernel, strides, dilations = (
        [b.size(4) for _ in range(count)],
        [b.size(3) for _ in range(count)],
        [b.size(2) for _ in range(count)],
    )
    attributes: dict[str, Any] = {"group": group, "strides": strides, "kernel_shape": kernel}
    match b.random.randrange(4):
        case 0 if all(
            s <= k for s, k in zip(strides, kernel, strict=True)
        ):  # else ONNX Runtime's size is not the specification's
            attributes |= {"auto_pad": b.random.choice(["SAME_UPPER", "SAME_LOWER"])}
        case 1:
            attributes |= {
                "output_shape": [
                    (n - 1) * s + k - b.random.randint(0, 1)
                    for n, s, k in zip(value.shape[2:], strides, kernel, strict=True)
                ]
            }
        case _:
            extra = [b.random.randrange(max(s, d)) for s, d in zip(strides, dilations, strict=True)]
            attributes |= {
                "pads": [b.random.randint(0, 1) for _ in range(2 * count)],
                "dilations": dilations,
                "output_padding": extra,
            }
    filters = b.size(3)
    weight = b.noise(channels, filters, *kernel) * np.float32(0.4)
    b.add("ConvTranspose", x, weight, b.noise(filters * group) if b.flag() else None, **attributes)


def pool(b: OnnxBuilder) -> None:
    x = b.real(3, 4, 4)
    value = b.values[x]
    count = value.ndim - 2
    kernel = [b.size(min(4, size)) for size in value.shape[2:]]  # ONNX Runtime lets larger windows pass
    match b.random.randrange(4):
        case 0:
            b.add(b.random.choice(["GlobalAveragePool", "GlobalMaxPool"]), x)
        case 1:
            attributes = {"kernel_shape": kernel, "strides": [b.size(2) for _ in range(count)], "p": b.size(3)}
            b.add("LpPool", x, **attributes, **_padding(b, count, 0))
        case kind:
            attributes: dict[str, Any] = {"kernel_shape": kernel, **_padding(b, count, max(0, min(kernel) - 1))}
            if b.flag():  # steps longer than windows are padded by less than nothing in ONNX Runtime, and refused
                longest = [3] * count if attributes.get("auto_pad", "VALID") == "VALID" else kernel
                attributes["strides"] = [b.size(min(3, size)) for size in longest]
            if b.flag() and "auto_pad" not in attributes:
                attributes["ceil_mode"] = 1
            if "auto_pad" not in attributes and b.flag() and (kind == 2 or b.opset >= 19):
                attributes["dilations"] = [
                    b.size(2 if 2 * (k - 1) < size else 1) for k, size in zip(kernel, value.shape[2:], strict=True)
                ]
            if kind == 2 and b.random.random() < 0.2:
                if (np.diff(np.sort(value, None)) < 1e-5).any():
                    raise Unfit
                b.add("MaxPool", x, storage_order=int(b.flag()), outputs=2, **attributes)
            elif kind == 2:
                b.add("MaxPool", x, **attributes)
            else:
                b.add("AveragePool", x, count_include_pad=int(b.flag()), **attributes)


def resize(b: OnnxBuilder) -> None:
    x = b.real(3, 4)
    value = b.values[x]
    spatial = value.ndim - 2
    mode = b.random.choice(["nearest", "linear", "linear", "cubic"])
    coordinates = b.random.choice(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = b.random.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        if spatial != 2:
            raise Unfit
        attributes["cubic_coeff_a"] = b.random.choice([-0.75, -0.5])
    if b.flag() or coordinates == "align_corners":
        absent = None if b.opset >= 13 else np.zeros(0, np.float32)
        sizes = [b.size(9) for _ in range(spatial)]
        if mode == "nearest" and any(
            has_inexact_tie(old, new, coordinates, attributes["nearest_mode"])
            for old, new in zip(value.shape[2:], sizes, strict=True)
        ):
            raise Unfit
        b.add("Resize", x, absent, absent, whole(*value.shape[:2], *sizes), **attributes)
    else:
        factors = [b.random.choice([0.5, 1.0, 1.5, 2.0, 3.0]) for _ in range(spatial)]
        b.add(
            "Resize",
            x,
            None if b.opset >= 13 else np.zeros(0, np.float32),
            np.array([1, 1, *factors], np.float32),
            **attributes,
        )


def has_inexact_tie(old: int, new: int, coordinates: str, nearest_mode: str) -> bool:
    """Whether a place lies just where ``nearest_mode`` turns over, and fp32 arithmetic may miss it: ONNX Runtime
    divides by ``new / old`` in fp32, which is exact for powers of two alone."""
    scale = Fraction(new, old)
    if coordinates == "align_corners" or (scale.denominator & (scale.denominator - 1)) == 0:
        return False
    half = Fraction(1, 2)
    shift = Fraction(0) if coordinates == "asymmetric" else half
    turn = half if nearest_mode.startswith("round") else Fraction(0)
    return any(((x + shift) / scale - shift - turn).denominator == 1 for x in range(new))


def samples(b: OnnxBuilder) -> None:
    """At points that are computed, as detectors take them."""
    x = b.real(4)
    batch, channels, height, width = b.values[x].shape
    if b.flag() and b.opset >= 19:
        groups, kernel = b.divisor(channels), [b.size(3), b.size(3)]
        taps, size = groups * kernel[0] * kernel[1], [height - kernel[0] + 2, width - kernel[1] + 2]
        mask = b.noise(batch, taps, *size) if b.flag() else None
        filters = b.size(4)
        weight, bias = b.noise(filters, channels, *kernel), b.noise(filters) if b.flag() else None
        b.add(
            "DeformConv",
            x,
            weight,
            b.noise(batch, 2 * taps, *size) * np.float32(2),
            bias,
            mask,
            offset_group=groups,
            pads=[0, 1, 1, 0],
        )
    else:
        count = b.size(4)
        corners = np.abs(b.noise(count, 4)) * np.float32(4)
        boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] + np.float32(0.5)], 1)
        attributes: dict[str, Any] = {
            "output_height": b.size(3),
            "output_width": b.size(3),
            "sampling_ratio": b.size(3),
            "spatial_scale": b.random.choice([1.0, 0.5]),
        }
        b.add("RoiAlign", x, boxes, b.numbers.integers(0, batch, count), **attributes)


# ---- products ----


def gemm(b: OnnxBuilder) -> None:
    x = b.real(2)
    rows, columns = b.values[x].shape
    a, t = b.flag(), b.flag()
    inner, outer, features = (rows, columns, b.size(6)) if a else (columns, rows, b.size(6))
    weight = b.noise(features, inner) if t else b.noise(inner, features)
    bias = b.random.choice([None, b.noise(features), b.noise(1, features), b.noise(1), b.noise(outer, 1)])
    b.add(
        "Gemm",
        x,
        weight,
        bias,
        alpha=b.random.choice([1.0, 0.5]),
        beta=b.random.choice([1.0, 2.0]),
        transA=int(a),
        transB=int(t),
    )


def matmul(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.float32 and x.ndim > 0)
    value = b.values[x]
    match b.random.randrange(4):
        case 0 if value.ndim > 1:
            b.add(
                "MatMul",
                x,
                b.pick(
                    lambda y: (
                        y.dtype == np.float32
                        and y.ndim > 1
                        and y.shape[-2] == value.shape[-1]
                        and broadcast(y[..., 0, 0], value[..., 0, 0])
                    )
                ),
            )
        case 1 if value.ndim > 1:
            b.add("MatMul", b.noise(b.size(4), value.shape[-2]), x)
        case 2 if value.ndim > 1:
            turned = b.add("Transpose", x, perm=[*range(value.ndim - 2), value.ndim - 1, value.ndim - 2])
            b.add("MatMul", x, turned)
        case _:
            b.add("MatMul", x, b.noise(value.shape[-1], b.size(6)))


def recurrent(b: OnnxBuilder) -> None:
    x = b.real(3)
    steps, _, features = b.values[x].shape
    if steps > 6:
        raise Unfit
    operator, gates = b.random.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    direction = b.random.choice(["forward", "reverse", "bidirectional"])
    d, h = (2 if direction == "bidirectional" else 1), b.size(3)
    bias = b.noise(d, 2 * gates * h) if b.flag() else None
    extra = {"linear_before_reset": 1} if operator == "GRU" else {}
    b.add(
        operator,
        x,
        b.noise(d, gates * h, features),
        b.noise(d, gates * h, h),
        bias,
        hidden_size=h,
        direction=direction,
        outputs=b.size(2),
        **extra,
    )


# ---- norms ----


def norm(b: OnnxBuilder) -> None:
    x = b.pick(lambda x: x.dtype == np.float32 and x.ndim >= 2)
    value = b.values[x]
    channels = value.shape[1]
    match b.random.randrange(7):
        case 0 | 1 | 2:
            b.add(
                "BatchNormalization",
                x,
                b.noise(channels),
                b.noise(channels),
                b.noise(channels),
                np.abs(b.noise(channels)) + np.float32(0.5),
                epsilon=1e-3,
            )
        case 3 if value.ndim > 2:
            b.add("InstanceNormalization", x, b.noise(channels), b.noise(channels), epsilon=1e-2)
        case 4 if b.opset >= 17:
            axis = b.axis(value)
            sizes = value.shape[axis:]
            b.add(
                "LayerNormalization", x, b.noise(*sizes), b.noise(*sizes) if b.flag() else None, axis=axis, epsilon=1e-2
            )
        case 5 if value.ndim == 4:
            b.add("LRN", x, size=b.random.choice([1, 3, 5]), alpha=0.1, beta=0.75, bias=1.5)
        case 6 if b.opset >= 21:
            b.add(
                "GroupNormalization",
                x,
                b.noise(channels),
                b.noise(channels),
                num_groups=b.divisor(channels),
                epsilon=1e-2,
            )
        case _:
            shifted = b.add("Add", x, scalar(0.01))
            b.add("LpNormalization", shifted, axis=b.axis(value), p=b.size(2))


STEPS = [
    conv,
    conv,
    conv,
    conv,
    conv_transpose,
    pool,
    pool,
    resize,
    samples,
    gemm,
    matmul,
    matmul,
    recurrent,
    norm,
    norm,
]
