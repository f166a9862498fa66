"""Max pooling by windows of up to 3x3, column strides 1 and 2, that reads its input where it is.

Rows of a window are combined in registers, then its columns; with column stride 2 vectors are parted into even and odd
columns there. A row outside of the image is the next one inside, which the window has, too; columns outside are masked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.isa import Isa
from pcc.codegen.kernel import READ_LEAD, READ_SLACK, Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.planes import PLACES, output_rows
from pcc.codegen.kernels.window_columns import every_second, in_order
from pcc.codegen.layers import Pool2d
from pcc.dtype import INT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

LARGEST = 3
"""Rows and columns of a window."""


def reads_in_place(layer: Pool2d, isa: Isa) -> bool:
    """Whether `PoolMax` computes a layer: rows of a vector and more, and windows that have a row inside."""
    geometry, lanes, size = layer.geometry, isa.lanes(layer.x.dtype), layer.x.dtype.bytes
    (kh, kw), (top, left), height = geometry.window, geometry.padding[:2], layer.y.shape[2]
    beyond = (layer.y.shape[3] - 1) * geometry.stride[1] - left + kw - layer.x.shape[3]
    return (
        layer.mode == "max"
        and max(kh, kw) <= LARGEST
        and geometry.dilation == (1, 1)
        and geometry.stride[1] <= 2
        and layer.y.shape[3] >= lanes
        and top < kh
        and (height - 1) * geometry.stride[0] - top < layer.x.shape[2]
        and (left + 1) * size <= READ_LEAD
        and (max(kw, beyond) + 2 * lanes) * size <= READ_SLACK
    )


@dataclass(frozen=True)
class PoolMax:
    """``left`` columns of padding; ``part`` lanes are 16 bytes. ``empty`` is what padding reads as."""

    window: tuple[int, int]
    stride: int
    left: int
    lanes: int
    part: int

    @property
    def name(self) -> str:
        height, width = self.window
        return f"pcc_pool_max_{height}x{width}_s{self.stride}_p{self.left}_x{self.lanes}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = ("out_height", "out_width", "stride_height", "top", "rows_per_item")
        pointers = (Param("x", "f32*"), Param("y", "f32*", writes=True), Param("masks", "i32*"))
        return (*pointers, *PLACES, *(Param(name) for name in numbers), Param("empty", "f32"))

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        last_column = (k.lanes - 1) * self.stride + self.window[1] - 1 - self.left
        with output_rows(k) as (x_at, y_at, oy):
            first = k.let(oy * k["stride_height"] - k["top"])
            lines = []
            for u in range(self.window[0]):
                line = k.let(math.larger(0, math.smaller(first + u, k["height"] - 1)))
                lines.append(k.pointer(k["x"], x_at + line * k["x_row"]))
            with k.loop(0, k.divide(k["out_width"] + (k.lanes - 1), k.lanes)[0]) as vector:
                i = k.let(math.smaller(vector * k.lanes, k["out_width"] - k.lanes))
                inside = tirx.all(i * self.stride >= self.left, i * self.stride + last_column < k["width"])
                with k.when_else(inside) as (then, otherwise):
                    with then:
                        k.store(k["y"], y_at + i, self._maximum(k, lines, i, None), k.lanes)
                    with otherwise:
                        at = k.let(vector * (self.window[1] * k.lanes))
                        k.store(k["y"], y_at + i, self._maximum(k, lines, i, at), k.lanes)

    def _maximum(self, k: "KernelBuilder", lines: "list[Buffer]", i: "Expr", masks: "Expr | None") -> "Expr":
        """The vector of outputs at column ``i``; where ``masks`` says where theirs are, columns can be outside."""
        from tvm import tirx

        highest: dict[int, Expr] = {}

        def column(offset: int) -> "Expr":
            if offset not in highest:
                values = [k.load(line, i * self.stride + offset, k.lanes) for line in lines]
                total = k.let(values[0])
                for value in values[1:]:
                    total = k.let(math.maximum(k, k.let(value), total))
                highest[offset] = total
            return highest[offset]

        total = None
        for v in range(self.window[1]):
            offset = v - self.left
            if self.stride == 1:
                value = column(offset)
            else:
                pair = [column(offset - offset % 2), column(offset - offset % 2 + k.lanes)]
                value = k.let(k.shuffle(pair, every_second(k.lanes, self.part, offset % 2)))
            if masks is not None:
                mask = k.let(k.load(k["masks"], masks + v * k.lanes, k.lanes))
                nothing = k.splat(tirx.const(0, INT32.tir()), k.lanes)
                value = k.let(tirx.Select(mask != nothing, value, k.splat(k["empty"], k.lanes)))
            total = value if total is None else k.let(math.maximum(k, value, total))
        return total if self.stride == 1 else k.shuffle([total], in_order(k.lanes, self.part))

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        n = {key: int(value) for key, value in args.items() if isinstance(value, int)}
        x, y, (kh, kw) = np.asarray(args["x"]), np.asarray(args["y"]), self.window
        blocks = -(-n["out_height"] // n["rows_per_item"])
        for item in range(begin, end):
            image, channel = divmod(item // blocks, n["channels"])
            first = item % blocks * n["rows_per_item"]
            for oy in range(first, min(first + n["rows_per_item"], n["out_height"])):
                rows = np.clip(oy * n["stride_height"] - n["top"] + np.arange(kh), 0, n["height"] - 1)
                for ox in range(n["out_width"]):
                    columns = ox * self.stride - self.left + np.arange(kw)
                    columns = columns[(columns >= 0) & (columns < n["width"])]
                    at = image * n["x_image"] + channel * n["x_plane"] + rows[:, None] * n["x_row"] + columns
                    y[image * n["y_image"] + channel * n["y_plane"] + oy * n["y_row"] + ox] = x[at].max(initial=-np.inf)
