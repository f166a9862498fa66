"""Maxima, averages and sums of windows: rows first, columns second.

The rows a window covers are combined into one row on the stack, whole vectors at a time; the window's columns are then
combined from there, with the padding filled in. Windows are clipped to the rows that exist, so that no padded copy of
the image is made. A window that is the whole image is a reduction of its own, and maxima of small windows need no stack
(`pool_max`). A maximum over a NaN is NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.planes import PLACES, output_rows, plane_strides
from pcc.codegen.kernels.pool_max import PoolMax, reads_in_place
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.window_columns import PART_BYTES, column_masks
from pcc.codegen.layers import ConvGeometry, Pool2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

ITEM_READS = 32768
"""Input elements an item should look at."""
IDENTITY = {"max": float("-inf"), "avg": 0.0, "sum": 0.0}
"""What padding is to the combination: minus infinity, zero."""
MOST_INPUTS = 1 << 14
"""Of a tile, about: they lie on the stack."""
WRITTEN_OUT = 16
"""Columns of a window that the code has one after the other; it loops over those of wider ones."""


def emit_pool(layer: Pool2d, b: ProgramBuilder) -> None:
    """``y = pool(x)``."""
    (batch, channels, height, width), (_, _, out_height, out_width) = layer.x.shape, layer.y.shape
    (kh, kw), (sh, sw), (top, left, _, _), (dh, dw) = (
        layer.geometry.window,
        layer.geometry.stride,
        layer.geometry.padding,
        layer.geometry.dilation,
    )
    places = {"x": layer.x, "y": layer.y, "channels": channels, "height": height, "width": width}
    places |= plane_strides(layer.x, layer.y)
    if (kh, kw) == (height, width) and (out_height, out_width) == (1, 1) and not any(layer.geometry.padding):
        if layer.x.strides[2] == width:
            places |= {"height": 1, "width": height * width}
        channels_per_item = max(1, ITEM_READS // (height * width))
        items = batch * -(-channels // channels_per_item)
        scale = 1.0 / (height * width) if layer.mode == "avg" else 1.0
        b.call(
            PoolPlane(layer.mode),
            places | {"channels_per_item": channels_per_item, "scale": scale},
            work=items,
            arithmetic=_arithmetic(layer),
        )
        return
    rows_per_item = max(1, min(out_height, ITEM_READS // (width * sh)))
    if reads_in_place(layer, b.isa):
        lanes, part = b.isa.lanes(layer.x.dtype), PART_BYTES // layer.x.dtype.bytes
        masks = column_masks(layer.geometry, width, out_width, lanes, part)
        numbers = {"out_height": out_height, "out_width": out_width, "stride_height": sh, "top": top}
        numbers |= {"masks": b.constant(f"{layer.name}.masks", masks), "rows_per_item": rows_per_item}
        kernel = PoolMax((kh, kw), sw, left, lanes, part)
        args = places | numbers | {"empty": IDENTITY["max"]}
        b.call(kernel, args, work=batch * channels * -(-out_height // rows_per_item), arithmetic=_arithmetic(layer))
        return
    rows, columns = (inverse_counts(layer, axis) for axis in (0, 1))
    b.call(
        PoolWindow(layer.mode, kw, sw, dw),
        {
            **places,
            "inverse_rows": b.constant(f"{layer.name}.inverse_rows", rows),
            "inverse_columns": b.constant(f"{layer.name}.inverse_columns", columns),
            "out_height": out_height,
            "out_width": out_width,
            "window_height": kh,
            "stride_height": sh,
            "dilation_height": dh,
            "top": top,
            "left": left,
            "rows_per_item": rows_per_item,
            "empty": IDENTITY[layer.mode],
        },
        work=batch * channels * -(-out_height // rows_per_item),
        arithmetic=_arithmetic(layer),
    )


def _arithmetic(layer: Pool2d) -> DType:
    """Maxima are exact in any type; sums are added up in fp32."""
    return layer.x.dtype if layer.mode == "max" else FLOAT32


def pool_work(x: View, y: View, machine: Machine) -> Work:
    """What pooling by small windows executes: rows are combined on the stack, columns from there."""
    lanes = machine.isa.lanes(x.dtype)
    read, written = prod(x.shape) / lanes, prod(y.shape) / lanes
    return Work(crossing=read + 2 * written, stores=3 * written) + machine.beyond(x, y)


def inverse_counts(layer: Pool2d, axis: int) -> np.ndarray:
    """Per output row (or column), one over the rows (columns) that count in an average; else ones."""
    geometry: ConvGeometry = layer.geometry
    outputs, size = layer.y.shape[2 + axis], layer.x.shape[2 + axis]
    before, after = geometry.padding[axis], geometry.padding[axis + 2]
    if layer.mode != "avg":
        return np.ones(outputs, np.float32)
    taps = (
        np.arange(outputs)[:, None] * geometry.stride[axis]
        + np.arange(geometry.window[axis]) * geometry.dilation[axis]
        - before
    )
    low, high = (-before, size + after) if layer.count_include_pad else (0, size)
    return (1.0 / np.maximum(1, ((taps >= low) & (taps < high)).sum(1))).astype(np.float32)


def _combine(k: "KernelBuilder", mode: str, total: "Expr", value: "Expr") -> "Expr":
    return math.maximum(k, value, total) if mode == "max" else total + value


@dataclass(frozen=True)
class PoolWindow:
    """Pools rows of outputs with windows of a fixed row: width, stride and dilation of the columns.

    ``empty`` is what padding reads as; were it known, LLVM would make calls of ``memset``.
    """

    mode: str
    window: int
    stride: int
    dilation: int

    @property
    def name(self) -> str:
        return f"pcc_pool_{self.mode}_k{self.window}s{self.stride}d{self.dilation}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = (
            "out_height",
            "out_width",
            "window_height",
            "stride_height",
            "dilation_height",
            "top",
            "left",
            "rows_per_item",
        )
        pointers = (
            Param("x", "f32*"),
            Param("y", "f32*", writes=True),
            Param("inverse_rows", "f32*"),
            Param("inverse_columns", "f32*"),
        )
        return (*pointers, *PLACES, *(Param(name) for name in numbers), Param("empty", "f32"))

    def body(self, k: "KernelBuilder") -> None:
        outputs = k.lanes * (4 if self.stride <= 2 else 1)  # of a tile
        outputs = max(1, min(outputs, MOST_INPUTS // self.stride))
        inputs = (outputs - 1) * self.stride + (self.window - 1) * self.dilation + 1
        row = k.local(inputs + 2 * k.lanes)
        total = k.local(k.lanes) if self.window > WRITTEN_OUT else None
        with output_rows(k) as (x_at, y_at, oy), k.loop(0, (k["out_width"] + (outputs - 1)) // outputs) as tile:
            column = k.let(
                tile * (outputs * self.stride) - k["left"]
            )  # of the image, at the start of the row on the stack
            self._combine_rows(k, row, inputs, x_at, oy, column)
            out = k.let(tile * outputs)
            self._combine_columns(k, row, total, y_at, oy, out, math.smaller(k["out_width"] - out, outputs))

    def _combine_rows(
        self, k: "KernelBuilder", row: "Expr", inputs: int, x_at: "Expr", oy: "Expr", column: "Expr"
    ) -> None:
        """Elements ``[column, column + inputs)`` of the rows under the window, combined."""
        lanes, step = k.lanes, k["dilation_height"]
        top = k.let(oy * k["stride_height"] - k["top"])
        skipped = k.let(math.larger(0, (step - 1 - top) // step))  # rows above the image
        rows = k.let(math.smaller(k["window_height"], (math.larger(0, k["height"] - top) + step - 1) // step))
        begin, end = k.let(math.larger(0, -column)), k.let(math.larger(0, math.smaller(inputs, k["width"] - column)))
        empty = k.splat(k["empty"], lanes)
        source = k.let(x_at + top * k["x_row"] + column + begin)
        total = k.local(lanes)
        with k.loop(0, (math.larger(0, end - begin) + (lanes - 1)) // lanes) as vector:
            k.store(total, 0, empty, lanes)
            with k.loop(skipped, rows) as u:
                value = k.load(k["x"], source + u * step * k["x_row"] + vector * lanes, lanes)
                k.store(total, 0, _combine(k, self.mode, k.load(total, 0, lanes), value), lanes)
            k.store(row, begin + vector * lanes, k.load(total, 0, lanes), lanes)
        with k.loop(0, math.smaller(begin, inputs)) as i:
            k.store(row, i, k["empty"])
        with k.loop(end, inputs) as i:
            k.store(row, i, k["empty"])

    def _combine_columns(
        self,
        k: "KernelBuilder",
        row: "Expr",
        total: "Expr | None",
        y_at: "Expr",
        oy: "Expr",
        out: "Expr",
        count: "Expr",
    ) -> None:
        scale = k.let(k.load(k["inverse_rows"], oy))

        def emit(offset: "Expr", lanes: int) -> None:
            value = self._combined(k, row, total, offset * self.stride, lanes)
            if self.mode == "avg":
                value = value * k.splat(scale, lanes) * k.load(k["inverse_columns"], out + offset, lanes)
            k.store(k["y"], y_at + out + offset, value, lanes)

        exact_run(k, count, emit)

    def _combined(self, k: "KernelBuilder", row: "Expr", total: "Expr | None", at: "Expr", lanes: int) -> "Expr":
        """The columns of ``lanes`` windows, of which the first begins at ``at``."""
        value = self._every(k, row, at, lanes)
        if total is None:
            for tap in range(1, self.window):
                value = k.let(_combine(k, self.mode, value, self._every(k, row, at + tap * self.dilation, lanes)))
            return value
        k.store(total, 0, value, lanes)
        with k.loop(1, self.window) as tap:
            value = self._every(k, row, at + tap * self.dilation, lanes)
            k.store(total, 0, _combine(k, self.mode, k.load(total, 0, lanes), value), lanes)
        return k.let(k.load(total, 0, lanes))

    def _every(self, k: "KernelBuilder", row: "Expr", at: "Expr", lanes: int) -> "Expr":
        """``lanes`` elements of the row from ``at`` on, a stride apart."""
        from pcc.codegen.builder import tirx

        if lanes == 1 or self.stride == 1:
            return k.load(row, at, lanes)
        if self.stride == 2:
            return k.every_second(k.load(row, at, lanes), k.load(row, at + lanes, lanes), lanes)
        return tirx.BufferLoad(row, [tirx.Ramp(at, self.stride, lanes)])

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        n = {key: int(value) for key, value in args.items() if isinstance(value, int)}
        x, y, inverse_rows, inverse_columns = (
            np.asarray(args[name]) for name in ("x", "y", "inverse_rows", "inverse_columns")
        )
        blocks = -(-n["out_height"] // n["rows_per_item"])
        reduce = np.max if self.mode == "max" else np.sum
        for item in range(begin, end):
            image, channel = divmod(item // blocks, n["channels"])
            start = image * n["x_image"] + channel * n["x_plane"]
            plane = np.lib.stride_tricks.as_strided(
                x[start:], (n["height"], n["width"]), (x.itemsize * n["x_row"], x.itemsize)
            )
            first = item % blocks * n["rows_per_item"]
            for oy in range(first, min(first + n["rows_per_item"], n["out_height"])):
                rows = oy * n["stride_height"] - n["top"] + n["dilation_height"] * np.arange(n["window_height"])
                rows = rows[(rows >= 0) & (rows < n["height"])]
                for ox in range(n["out_width"]):
                    columns = ox * self.stride - n["left"] + self.dilation * np.arange(self.window)
                    columns = columns[(columns >= 0) & (columns < n["width"])]
                    value = reduce(
                        plane[np.ix_(rows, columns)], initial=np.float32(-np.inf if self.mode == "max" else 0.0)
                    )
                    scale = inverse_rows[oy] * inverse_columns[ox]
                    y[image * n["y_image"] + channel * n["y_plane"] + oy * n["y_row"] + ox] = value * scale


@dataclass(frozen=True)
class PoolPlane:
    """Reduces whole planes to a number each; planes without gaps come as one row."""

    mode: str

    @property
    def name(self) -> str:
        return f"pcc_pool_plane_{self.mode}"

    @property
    def params(self) -> tuple[Param, ...]:
        return (
            Param("x", "f32*"),
            Param("y", "f32*", writes=True),
            *PLACES,
            Param("channels_per_item"),
            Param("scale", "f32"),
        )

    def body(self, k: "KernelBuilder") -> None:
        lanes, empty = k.lanes, IDENTITY[self.mode]
        blocks = k.let((k["channels"] + k["channels_per_item"] - 1) // k["channels_per_item"])
        whole, part = k.local(lanes), k.local(1)
        with k.work() as item:
            image, first = k.let(item // blocks), k.let(item % blocks * k["channels_per_item"])
            with k.loop(first, math.smaller(first + k["channels_per_item"], k["channels"])) as channel:
                at = k.let(image * k["x_image"] + channel * k["x_plane"])
                k.store(whole, 0, k.splat(empty, lanes), lanes)
                k.store(part, 0, empty)
                with k.loop(0, k["height"]) as row:
                    start = k.let(at + row * k["x_row"])

                    def emit(offset: "Expr", width: int, start: "Expr" = start) -> None:
                        value = k.let(k.load(k["x"], start + offset, width))
                        if width == lanes:
                            k.store(whole, 0, _combine(k, self.mode, k.load(whole, 0, lanes), value), lanes)
                        else:
                            k.store(part, 0, _combine(k, self.mode, k.load(part, 0), fold(k, self.mode, value, width)))

                    exact_run(k, k["width"], emit)
                total = _combine(k, self.mode, k.load(part, 0), fold(k, self.mode, k.load(whole, 0, lanes), lanes))
                k.store(k["y"], image * k["y_image"] + channel * k["y_plane"], total * k["scale"])

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        n = {key: int(value) for key, value in args.items() if isinstance(value, int)}
        x, y = np.asarray(args["x"]), np.asarray(args["y"])
        blocks = -(-n["channels"] // n["channels_per_item"])
        for item in range(begin, end):
            image, first = item // blocks, item % blocks * n["channels_per_item"]
            for channel in range(first, min(first + n["channels_per_item"], n["channels"])):
                start = image * n["x_image"] + channel * n["x_plane"]
                plane = np.lib.stride_tricks.as_strided(
                    x[start:], (n["height"], n["width"]), (x.itemsize * n["x_row"], x.itemsize)
                )
                y[image * n["y_image"] + channel * n["y_plane"]] = (
                    plane.max() if self.mode == "max" else plane.sum() * np.float32(args["scale"])
                )


def fold(k: "KernelBuilder", mode: str, vector: "Expr", lanes: int) -> "Expr":
    """The sum or maximum of a vector's lanes, by halves."""
    from pcc.codegen.builder import tirx

    while lanes > 1:
        vector, lanes = k.let(vector), lanes // 2
        low, high = (tirx.Shuffle([vector], list(range(part, part + lanes))) for part in (0, lanes))
        vector = _combine(k, mode, low, high)
    return k.let(vector)
