"""Nearest and bilinear resampling by tables of source rows and columns, those of `pcc.codegen.kernels.resize`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.resize import bilinear_sources, nearest_sources
from pcc.codegen.layers import Resize2d
from pcc.codegen.opencl.kernels.numbers import elements, numbers, place, tensor, whole_numbers
from pcc.codegen.opencl.places import PLANE_NUMBERS, plane_at, plane_numbers
from pcc.codegen.opencl.work_group import range_over
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, INT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder
    from pcc.codegen.opencl.program import DeviceProgramBuilder


def emit_resize(layer: Resize2d, b: "DeviceProgramBuilder") -> None:
    """``y = resize(x)``."""
    bilinear = layer.mode == "bilinear"
    tables: dict[str, np.ndarray] = {}
    for axis, name in enumerate(("rows", "columns")):
        if bilinear:
            tables[name], tables[f"{name}_weight"] = bilinear_sources(layer, axis)
        else:
            tables[name] = nearest_sources(layer, axis)
    constants = b.named_constants(layer.name, tables)
    images, channels, out_height, out_width = layer.y.shape
    b.call(
        Resize(bilinear, layer.x.dtype),
        {
            "x": layer.x,
            "y": layer.y,
            **constants,
            **plane_numbers(layer.x, layer.y),
            "out_height": out_height,
            "out_width": out_width,
        },
        range_over((out_width, out_height, images * channels)),
    )


@dataclass(frozen=True)
class Resize:
    """An item is a number of the result: a source, or four that are mixed, rows first."""

    bilinear: bool
    dtype: DType

    arithmetic = FLOAT32

    @property
    def name(self) -> str:
        return f"pcc_resize_{'bilinear' if self.bilinear else 'nearest'}_{self.dtype.short}"

    @property
    def params(self) -> tuple[Param, ...]:
        weights = [tensor(name, FLOAT32) for name in ("rows_weight", "columns_weight") if self.bilinear]
        return (
            tensor("x", self.dtype),
            tensor("y", self.dtype, writes=True),
            tensor("rows", INT32),
            tensor("columns", INT32),
            *weights,
            *numbers(*PLANE_NUMBERS, "out_height", "out_width"),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        column, row, plane = place(k, k["out_width"], k["out_height"])
        x, y = plane_at(k, plane)
        out = k.let(y + row * k["y_pitch"] + column)
        if not self.bilinear:
            at = x + k.word(k["rows"], row) * k["x_pitch"] + k.word(k["columns"], column)
            k.store(k["y"], out, k.load(k["x"], at))
            return
        mixed = []
        row_weight, column_weight = k.load(k["rows_weight"], row), k.load(k["columns_weight"], column)
        for side in (0, 1):
            at = k.word(k["columns"], column * 2 + side)
            low, high = (k.load(k["x"], x + k.word(k["rows"], row * 2 + which) * k["x_pitch"] + at) for which in (0, 1))
            mixed.append(k.let(low + (high - low) * row_weight))
        k.store(k["y"], out, mixed[0] + (mixed[1] - mixed[0]) * column_weight)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, x, y = whole_numbers(args), np.asarray(args["x"]), np.asarray(args["y"])
        size, sides = (n["out_height"], n["out_width"]), 2 if self.bilinear else 1
        rows, columns = (
            np.asarray(args[name])[: count * sides].reshape(count, sides)
            for name, count in zip(("rows", "columns"), size, strict=True)
        )
        for plane in np.arange(range.global_size[2]):
            image, channel = divmod(int(plane), n["channels"])
            start = n["x_offset"] + image * n["x_image"] + channel * n["x_plane"]
            at = start + rows.T[:, None, :, None] * n["x_pitch"] + columns.T[None, :, None, :]
            value = x[at].astype(np.float32)
            if self.bilinear:
                down, across = (np.asarray(args[f"{name}_weight"]) for name in ("rows", "columns"))
                mixed = value[0] + (value[1] - value[0]) * down[: size[0], None]
                result = mixed[0] + (mixed[1] - mixed[0]) * across[: size[1]]
            else:
                result = value[0, 0]
            start = n["y_offset"] + image * n["y_image"] + channel * n["y_plane"]
            y[elements(start, size, (n["y_pitch"], 1))] = result.astype(y.dtype)
