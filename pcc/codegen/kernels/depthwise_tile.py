"""The kernel of depthwise convolution that reads its input where it is, and what it knows of a plane."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, product
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.window_columns import every_second, in_order
from pcc.codegen.layers import Conv2d
from pcc.codegen.program import has_whole_lines, whole_lines
from pcc.dtype import INT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


def stored_lanes(layer: Conv2d, lanes: int) -> tuple[int, ...] | None:
    """How many lanes of a vector each row stores, which may be the junk behind a narrow one: all where the plane has
    room, else half of them, or a quarter; None where nothing fits."""
    (height, width), pitch = layer.y.shape[2:], layer.y.strides[2]
    room = whole_lines(height * width, layer.y.dtype)
    if width >= lanes:
        return (lanes,) * height
    fits = [
        [part for part in (lanes >> n for n in range(4)) if width <= part <= room - row * pitch]
        for row in range(height)
    ]
    return tuple(map(max, fits)) if has_whole_lines(layer.y) and all(fits) else None


@dataclass(frozen=True)
class Plane:
    """Where the rows of a plane are that is one block: numbers in the code."""

    pitch: int
    y_row: int
    r_row: int
    """0 without a residual."""
    stored: tuple[int, ...]
    """Lanes that each row stores."""

    @staticmethod
    def of(layer: Conv2d, lanes: int) -> "Plane":
        stored = stored_lanes(layer, lanes)
        assert stored is not None
        r_row = 0 if layer.residual is None else layer.residual.strides[2]
        return Plane(layer.x.strides[2], layer.y.strides[2], r_row, stored)

    def __str__(self) -> str:
        runs = [f"{len(list(rows))}x{lanes}" for lanes, rows in groupby(self.stored)]
        return "_".join(map(str, (self.pitch, self.y_row, self.r_row, *runs)))


@dataclass(frozen=True)
class _Item:
    """What an item knows of its plane."""

    x: "Buffer"
    y: "Buffer"
    residual: "Buffer | None"
    bias: "Expr"
    parameter: "Expr | None"
    weights: "list[Expr]"


@dataclass(frozen=True)
class ConvDepthwiseDirect:
    """``padding`` is (top, left). Of the rows of the padded input that a block uses, the first ``padding[0]`` can be
    above the image, those from ``below`` on below it; where all rows are one block, which ``plane`` says, they are.
    ``masked`` says for each column of the window whether it can be outside. ``multiplier`` filters read a channel.
    ``part`` is how many lanes are 16 bytes.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    below: int
    rows: int
    narrow: bool
    masked: tuple[bool, ...]
    lanes: int
    epilogue: Epilogue
    part: int
    multiplier: int = 1
    plane: Plane | None = None

    @property
    def name(self) -> str:
        window = "_".join(
            f"{name}{a}x{b}"
            for name, (a, b) in zip("ksdp", (self.kernel, self.stride, self.dilation, self.padding), strict=True)
        )
        masked = "".join(str(int(flag)) for flag in self.masked)
        width = "narrow" if self.narrow else "wide"
        tile = f"{width}{self.rows}x{self.lanes}" + ("" if self.plane is None else f"_whole{self.plane}")
        several = f"_m{self.multiplier}" if self.multiplier > 1 else ""
        return f"pcc_conv_depthwise_direct_{window}_{self.below}_{masked}_{tile}{several}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"),) if self.epilogue.residual else ()
        numbers = ("x_image", "x_plane", "x_width", "filters", "width", "y_image", "y_plane")
        strides = ("r_image", "r_plane") if self.epilogue.residual else ()
        if self.plane is None:
            strides += ("pitch", "x_height", "height", "y_row", *(("r_row",) if self.epilogue.residual else ()))
        pointers = (
            Param("x", "f32*"),
            Param("w", "f32*"),
            *self.epilogue.params,
            Param("masks", "i32*"),
            *residual,
            Param("y", "f32*", writes=True),
        )
        return *pointers, *(Param(name) for name in (*numbers, *strides))

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        taps = self.kernel[0] * self.kernel[1]
        with k.work() as item:
            image, filter = k.divide(item, k["filters"])
            channel = filter if self.multiplier == 1 else k.divide(filter, self.multiplier)[0]
            residual = (
                k.pointer(k["residual"], image * k["r_image"] + filter * k["r_plane"])
                if self.epilogue.residual
                else None
            )
            plane = _Item(
                k.pointer(k["x"], image * k["x_image"] + channel * k["x_plane"]),
                k.pointer(k["y"], image * k["y_image"] + filter * k["y_plane"]),
                residual,
                k.let(k.load(k["bias"], filter)),
                self.epilogue.parameter(k, filter),
                [k.let(k.load(k["w"], filter * taps + tap)) for tap in range(taps)],
            )
            if self.plane is not None:
                self._block(k, plane, 0)
            else:
                blocks, _ = k.divide(k["height"] + (self.rows - 1), self.rows)
                with k.loop(0, blocks) as block:
                    self._block(k, plane, k.let(tirx.Min(block * self.rows, k["height"] - self.rows)))

    def _block(self, k: "KernelBuilder", item: "_Item", row: "Expr") -> None:
        """The rows from ``row`` on, vector by vector."""
        from tvm import tirx

        if self.narrow:
            return self._vector(k, item, row, 0, 0, masks=k["masks"])
        last_column = (k.lanes - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] - self.padding[1]
        last_line = max(self._users()) - self.padding[0]
        with k.loop(0, k.divide(k["width"] + (k.lanes - 1), k.lanes)[0]) as vector:
            i = k.let(tirx.Min(vector * k.lanes, k["width"] - k.lanes))
            inside = [i * self.stride[1] >= self.padding[1], i * self.stride[1] + last_column < k["x_width"]]
            if self.plane is None:
                inside += [
                    row * self.stride[0] >= self.padding[0],
                    row * self.stride[0] + last_line < k["x_height"],
                ]
            with k.when_else(tirx.all(*inside)) as (then, otherwise):
                with then:
                    self._vector(k, item, row, i, vector, masks=None)
                with otherwise:
                    self._vector(k, item, row, i, vector, masks=k["masks"])

    def _vector(
        self, k: "KernelBuilder", item: "_Item", row: "Expr", i: "Expr", vector: "Expr", masks: "Buffer | None"
    ) -> None:
        """The vector at column ``i`` of each row of a block, stored as soon as it is done. Without ``masks`` all of its
        taps are inside."""
        kw = self.kernel[1]
        y_row, r_row = (k["y_row"], None) if self.plane is None else (self.plane.y_row, self.plane.r_row)
        if self.plane is None and self.epilogue.residual:
            r_row = k["r_row"]
        sums = [k.let(k.splat(item.bias, k.lanes))] * self.rows
        columns = (
            []
            if masks is None
            else [
                k.let(k.load(masks, (vector * kw + v) * k.lanes, k.lanes)) if flag else None
                for v, flag in enumerate(self.masked)
            ]
        )
        for line, users in sorted(self._users().items()):
            if self.plane is None or self.padding[0] <= line < self.below:
                for v, value in enumerate(self._taps(k, item.x, row, line, i, None if masks is None else columns)):
                    for r, u in users:
                        sums[r] = k.let(sums[r] + k.splat(item.weights[u * kw + v], k.lanes) * value)
            for r in (r for r, u in users if u == self.kernel[0] - 1):
                value = sums[r] if self.stride[1] == 1 else k.let(k.shuffle([sums[r]], in_order(k.lanes, self.part)))
                lanes = k.lanes if self.plane is None else self.plane.stored[r]
                addend = None if item.residual is None else k.load(item.residual, i + (row + r) * r_row, lanes)
                done = self.epilogue.apply(k, k.part(value, 0, lanes), addend, lanes, item.parameter)
                k.store(item.y, k.let(i + (row + r) * y_row), done, lanes)

    def _users(self) -> dict[int, list[tuple[int, int]]]:
        """Rows of the padded input, from a block's first on: the (row of outputs, row of the window) that use each."""
        users: dict[int, list[tuple[int, int]]] = {}
        for r in range(self.rows):
            for u in range(self.kernel[0]):
                users.setdefault(r * self.stride[0] + u * self.dilation[0], []).append((r, u))
        return users

    def _taps(
        self, k: "KernelBuilder", x: "Buffer", row: "Expr", line: int, i: "Expr", columns: "list[Expr | None] | None"
    ) -> "list[Expr]":
        """What each column of the window reads of a row of the input, zero where it is outside."""
        from tvm import tirx

        at, is_inside = row * self.stride[0] + (line - self.padding[0]), None
        if self.plane is None and columns is not None and (line < self.padding[0] or line >= self.below):
            at = k.let(at)
            is_inside = k.let(
                tirx.Select(
                    tirx.And(at >= 0, at < k["x_height"]), tirx.const(-1, INT32.tir()), tirx.const(0, INT32.tir())
                )
            )
            at = tirx.Max(tirx.Min(at, k["x_height"] - 1), tirx.const(0, INT32.tir()))
        pitch = k["pitch"] if self.plane is None else self.plane.pitch
        source = k.pointer(x, at * pitch + i * self.stride[1])
        places = [v * self.dilation[1] - self.padding[1] for v in range(self.kernel[1])]
        if self.stride[1] == 1:
            values = [k.let(k.load(source, column, k.lanes)) for column in places]
        else:
            values = _every_second(k, source, places, self.part)
        found: list[Expr] = []
        for v, value in enumerate(values):
            mask = columns[v] if columns else None
            if is_inside is not None:
                mask = k.splat(is_inside, k.lanes) if mask is None else mask & k.splat(is_inside, k.lanes)
            found.append(value if mask is None else k.let(k.mask(value, mask, k.lanes)))
        return found

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, w, bias, masks, y = (np.asarray(args[name]) for name in ("x", "w", "bias", "masks", "y"))
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        if self.plane is not None:
            n |= vars(self.plane) | {"height": self.rows, "x_height": self.below - self.padding[0]}
        (kh, kw), row = self.kernel, np.arange(n["height"])[:, None]
        place = np.array(in_order(self.lanes, self.part) if self.stride[1] == 2 else range(self.lanes))
        for item in range(begin, end):
            image, filter = divmod(item, n["filters"])
            plane = image * n["x_image"] + filter // self.multiplier * n["x_plane"]
            for vector, start in enumerate(range(0, n["width"], self.lanes)):
                first = max(0, min(start, n["width"] - self.lanes))
                column = np.arange(first, min(first + self.lanes, n["width"]))
                sums = np.full((n["height"], len(column)), bias[filter])
                for u, v in product(range(kh), range(kw)):
                    source = row * self.stride[0] + u * self.dilation[0] - self.padding[0]
                    at = plane + source * n["pitch"] + column * self.stride[1] + v * self.dilation[1] - self.padding[1]
                    kept = masks[(vector * kw + v) * self.lanes + place[column - first]] != 0
                    kept = kept & (source >= 0) & (source < n["x_height"])
                    sums += w[filter * kh * kw + u * kw + v] * np.where(kept, x[np.where(kept, at, 0)], 0)

                def at_of(
                    name: str, image: int = image, filter: int = filter, column: np.ndarray = column
                ) -> np.ndarray:
                    return image * n[f"{name}_image"] + filter * n[f"{name}_plane"] + row * n[f"{name}_row"] + column

                residual = np.asarray(args["residual"])[at_of("r")] if self.epilogue.residual else None
                parameter = self.epilogue.reference_parameter(args, filter)
                y[at_of("y")] = self.epilogue.reference(sums, residual, parameter)


def _every_second(k: "KernelBuilder", row: "Buffer", columns: list[int], part: int) -> "list[Expr]":
    """Every second element of a row from each of these columns on, in the order of `every_second`.

    Two loads give the even ones and the odd ones of the columns that most want; those a step to either side take one
    element more, which for vectors longer than 16 bytes is cheaper than two loads that cross cache lines.
    """
    evens, order = [column - column % 2 for column in columns], in_order(k.lanes, part)
    pairs: dict[int, list[Expr]] = {}
    found: dict[int, Expr] = {}
    for column in sorted(columns, key=lambda column: -evens.count(column - column % 2)):
        even, near = column - column % 2, [known for known in found if abs(known - column) == 2]
        if near and k.lanes > part:
            known = near[0]
            lanes, outside = (order, column) if column < known else (order[::-1], known + 2 * k.lanes)
            places = dict(zip(lanes[1:], lanes, strict=False)) | {lanes[0]: k.lanes}
            more = k.splat(k.let(k.load(row, outside)), k.lanes)
            found[column] = k.let(k.shuffle([found[known], more], [places[lane] for lane in range(k.lanes)]))
            continue
        if even not in pairs:
            pairs[even] = [k.let(k.load(row, even + ahead, k.lanes)) for ahead in (0, k.lanes)]
        found[column] = k.let(k.shuffle(pairs[even], every_second(k.lanes, part, column % 2)))
    return [found[column] for column in columns]
