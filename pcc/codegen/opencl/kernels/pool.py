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
from pcc.codegen.opencl.places import PLANE_NUMBERS, plane_at, plane_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder

WINDOW_NUMBERS = ("rows", "columns", "down", "across", "row_step", "column_step", "top", "left")
"""Size of a window, its stride, its dilation, padding before the map."""


def emit_pool(layer: Pool2d, b: "DeviceProgramBuilder") -> None:
    """``y = pool(x)``."""
    (images, channels, height, width), (out_height, out_width) = layer.x.shape, layer.y.shape[2:]
    g = layer.geometry
    window = dict(zip(WINDOW_NUMBERS, (*g.window, *g.stride, *g.dilation, *g.padding[:2]), strict=True))
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
        first_row = k.let(row * k["down"] - k["top"])
        first_column = k.let(column * k["across"] - k["left"])
        total = k.variable(k.splat(IDENTITY[self.mode]))
        with k.loop(k["rows"]) as window_row:
            at_row = k.let(first_row + window_row * k["row_step"])
            with k.when_all(at_row >= 0, at_row < k["height"]), k.loop(k["columns"]) as window_column:
                at_column = k.let(first_column + window_column * k["column_step"])
                with k.when_all(at_column >= 0, at_column < k["width"]):
                    value = k.load(k["x"], x + at_row * k["x_pitch"] + at_column)
                    total.value = k.larger(total.value, value) if self.mode == "max" else total.value + value
        value = total.value
        if self.mode == "avg":
            value = value * (k.load(k["inverse_rows"], row) * k.load(k["inverse_columns"], column))
        k.store(k["y"], y + row * k["y_pitch"] + column, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, x, y = whole_numbers(args), np.asarray(args["x"]), np.asarray(args["y"])
        size = n["out_height"], n["out_width"]
        rows = np.arange(size[0])[:, None] * n["down"] - n["top"] + np.arange(n["rows"]) * n["row_step"]
        columns = np.arange(size[1])[:, None] * n["across"] - n["left"] + np.arange(n["columns"]) * n["column_step"]
        inside = ((rows >= 0) & (rows < n["height"]))[:, None, :, None]
        inside = inside & ((columns >= 0) & (columns < n["width"]))[None, :, None, :]
        places = rows[:, None, :, None] * n["x_pitch"] + columns[None, :, None, :]
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
