"""Layers that device kernels compute, against PyTorch in float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.planes import Planes
from pcc.dtype import FLOAT32, DType
from pcc.ir.activation import IDENTITY, Activation
from tests.codegen.opencl.planes import from_planes, in_planes
from tests.opencl import POCL, run, run_reference


@dataclass(frozen=True)
class Case:
    """A convolution of some size, with or without a residual."""

    channels: int
    filters: int
    height: int
    width: int
    geometry: ConvGeometry
    images: int = 1
    activation: Activation = IDENTITY
    residual: bool = False
    groups: int = 1
    dtype: DType = FLOAT32

    def __str__(self) -> str:
        g = self.geometry
        size = f"{self.images}x{self.channels}to{self.filters}@{self.height}x{self.width}"
        return f"{size}w{g.window}s{g.stride}p{g.padding}d{g.dilation}"


def layer_of(case: Case, weight: np.ndarray, seed: int = 0) -> tuple[Conv2d, dict[str, np.ndarray], Planes]:
    """The layer, its buffers, and how its output lies."""
    random = np.random.default_rng(seed)
    out = case.geometry.output_size(case.height, case.width)
    down = case.geometry.dilation[0] * (case.geometry.window[0] - 1) + 8
    x_layout = Planes((case.images, case.channels, case.height, case.width), down, case.dtype)
    y_layout = Planes((case.images, case.filters, *out), 1, case.dtype)
    x, residual = (random.standard_normal(layout.shape).astype(case.dtype.numpy) for layout in (x_layout, y_layout))
    buffers = {"x": in_planes(x, x_layout), "y": in_planes(np.zeros(y_layout.shape), y_layout)}
    if case.residual:
        buffers["residual"] = in_planes(residual, y_layout)
    bias, parameter = (random.standard_normal(case.filters).astype(np.float32) for _ in range(2))
    views = x_layout.view("x"), y_layout.view("y"), y_layout.view("residual") if case.residual else None
    return (
        Conv2d(
            str(case),
            *views[:2],
            weight,
            bias,
            case.geometry,
            case.groups,
            views[2],
            case.activation,
            parameter if case.activation.is_parametric else None,
        ),
        buffers,
        y_layout,
    )


def expected(layer: Conv2d, weight: np.ndarray, buffers: dict[str, np.ndarray], case: Case) -> np.ndarray:
    """The layer in PyTorch, float64."""
    down = case.geometry.dilation[0] * (case.geometry.window[0] - 1) + 8
    x = torch.from_numpy(from_planes(buffers["x"], Planes(layer.x.shape, down, case.dtype)))  # type: ignore[arg-type]
    top, left, bottom, right = case.geometry.padding
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    y = torch.nn.functional.conv2d(
        padded,
        torch.from_numpy(weight.astype(case.dtype.numpy).astype(np.float64)),
        torch.from_numpy(np.asarray(layer.bias).astype(np.float64)),
        case.geometry.stride,
        0,
        case.geometry.dilation,
        case.groups,
    )
    if case.residual:
        y = y + torch.from_numpy(from_planes(buffers["residual"], Planes(layer.y.shape, 1, case.dtype)))  # type: ignore[arg-type]
    parameter = None if layer.parameter is None else torch.from_numpy(layer.parameter.astype(np.float64))
    return case.activation(y, None if parameter is None else parameter.reshape(-1, 1, 1)).numpy()


def arguments_of(call: DeviceCall, buffers: dict[str, np.ndarray]) -> dict[str, np.ndarray | int | float]:
    return {
        **{name: buffers[view.buffer] for name, view in call.tensors.items()},
        **call.tables,
        **{name: weight.values for name, weight in call.weights.items()},
        **call.numbers,
    }


def compute(
    calls: Sequence[DeviceCall], buffers: dict[str, np.ndarray], platform: str = POCL, *, by_reference: bool = False
) -> dict[str, np.ndarray]:
    """All buffers after the calls."""
    runner: Callable[..., Any] = run_reference if by_reference else run
    after = dict(buffers)
    for call in calls:
        extra = () if by_reference else (platform,)
        for name, result in runner(call.kernel, arguments_of(call, after), call.range, *extra).items():
            after[call.tensors[name].buffer] = result
    return after


def check(
    case: Case,
    weight: np.ndarray,
    calls_of: Callable[[Conv2d], Sequence[DeviceCall]],
    tolerance: float,
    platform: str = POCL,
    scratch: dict[str, np.ndarray] | None = None,
) -> None:
    """Asserts that the calls compute the layer, on the driver and by their reference: the largest error to the largest
    output. ``scratch`` are buffers that asking for the calls makes."""
    layer, buffers, y_layout = layer_of(case, weight)
    wanted, calls = expected(layer, weight, buffers, case), calls_of(layer)
    for by_reference in (False, True):
        y = from_planes(
            compute(calls, {**buffers, **(scratch or {})}, platform, by_reference=by_reference)["y"], y_layout
        )
        error = np.abs(y - wanted).max() / np.abs(wanted).max()
        assert error < tolerance, f"{'reference' if by_reference else platform}: error {error:.1e} > {tolerance:.1e}"
