"""Max and average pooling: an item is a number of the result, and walks its window."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.pool import IDENTITY, inverse_counts
from pcc.codegen.layers import Pool2d
from pcc.codegen.opencl.kernels.numbers import (
    elements,
    numbers,
    of_numbers,
    place,
    tensor,
    whole_numbers,
)
from pcc.codegen.opencl.kernels.window import (
    WINDOW_NUMBERS,
    over_window,
    reference_windows,
    window_begin,
    window_numbers,
)
from pcc.codegen.opencl.places import PLANE_NUMBERS, plane_at, plane_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_pool(layer: Pool2d, b: "DeviceProgramBuilder") -> None:
    """``y = pool(x)``."""
    (images, channels, height, width), (out_height, out_width) = layer.x.shape, layer.y.shape[2:]
    window = window_numbers(layer.geometry)
    counts = {
        f"inverse_{name}": b.constant(f"{layer.name}.inverse_{name}", inverse_counts(layer, axis))
        for axis, name in enumerate(("rows", "columns"))
    }
    sizes = {"height": height, "width": width, "out_height": out_height, "out_width": out_width}
    b.call(
        Pool(layer.mode, layer.x.dtype),
        {"x": layer.x, "y": layer.y, **counts, **plane_numbers(layer.x, layer.y), **sizes, **window},
        range_over((out_width, out_height, images * channels)),
    )


@dataclass(frozen=True)
class Pool:
    """``max``, ``avg`` or ``sum``; windows are clipped to the map. The maximum of a window that holds a NaN is NaN."""

    mode: str
    dtype: DType

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_pool_{self.mode}_{self.dtype.short}"

    @property
    def params(self) -> tuple[Param, ...]:
        return (
            tensor("x", self.dtype),
            tensor("y", self.dtype, writes=True),
            tensor("inverse_rows", FLOAT32),
            tensor("inverse_columns", FLOAT32),
            *numbers(*PLANE_NUMBERS, "height", "width", "out_height", "out_width", *WINDOW_NUMBERS),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        k = of_numbers(k)
        column, row, plane = place(k, k["out_width"], k["out_height"])
        x, y = plane_at(k, plane)
        begin = window_begin(k, row, column)
        total = k.variable(k.splat(IDENTITY[self.mode]))
        with over_window(k, *begin) as (_, _, at_row, at_column):
            value = k.load(k["x"], x + at_row * k["x_pitch"] + at_column)
            total.value = k.larger(total.value, value) if self.mode == "max" else total.value + value
        value = total.value
        if self.mode == "avg":
            value = value * (k.load(k["inverse_rows"], row) * k.load(k["inverse_columns"], column))
        k.store(k["y"], y + row * k["y_pitch"] + column, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, x, y = whole_numbers(args), np.asarray(args["x"]), np.asarray(args["y"])
        size = n["out_height"], n["out_width"]
        places, inside = reference_windows(n)
        scale = np.multiply.outer(
            np.asarray(args["inverse_rows"])[: size[0]], np.asarray(args["inverse_columns"])[: size[1]]
        )
        for plane in np.arange(range.global_size[2]):
            image, channel = divmod(int(plane), n["channels"])
            start = n["x_offset"] + image * n["x_image"] + channel * n["x_plane"]
            values = np.where(
                inside, x[np.where(inside, start + places, start)].astype(np.float32), IDENTITY[self.mode]
            )
            result = values.max((2, 3)) if self.mode == "max" else values.sum((2, 3)) * scale
            start = n["y_offset"] + image * n["y_image"] + channel * n["y_plane"]
            y[elements(start, size, (n["y_pitch"], 1))] = result.astype(y.dtype)
