"""Depthwise convolution that reads its input where it is: 3x3 and 5x5 windows, column strides 1 and 2, any row stride,
dilation and padding.

An item is one output plane, computed by blocks of rows, vector by vector; a row of less than a vector is stored with
the junk behind it, which the next row replaces. A row of the input is loaded once for all output rows of the block that
use it; with column stride 2 its vectors are parted into even and odd columns in registers. Where a vector can touch the
edge of the image, rows outside are moved into it and masked, columns masked by a table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import READ_LEAD, READ_SLACK, Argument, Param
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View, has_whole_lines
from pcc.dtype import INT32, REALS, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

WINDOWS = ((3, 3), (5, 5))
ROWS = 4
"""Rows of outputs that are computed at once where registers are many."""


@dataclass(frozen=True)
class DirectSchedule:
    """The rows computed at once, and whether a row is less than a vector."""

    rows: int
    narrow: bool

    def __str__(self) -> str:
        return f"{self.rows} {'narrow ' if self.narrow else ''}rows at once"

    def variants(self) -> Iterator["DirectSchedule"]:
        """Fewer rows at once."""
        yield from (replace(self, rows=rows) for rows in range(1, self.rows))


@dataclass(frozen=True)
class DirectFamily:
    """Convolutions whose filters read one channel each, without a copy of the input."""

    name: str = "conv-depthwise-direct"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        geometry, weight, lanes = layer.geometry, layer.weight, machine.isa.lanes(layer.x.dtype)
        assert isinstance(weight, np.ndarray)
        if layer.groups == 1 or weight.shape[1] != 1:
            return "a filter reads more than one channel"
        if geometry.window not in WINDOWS or geometry.stride[1] > 2:
            return "its window is not 3x3 or 5x5, or steps over more than every second column"
        reach = (geometry.window[1] - 1) * geometry.dilation[1]
        if (geometry.padding[1] + 1) * layer.x.dtype.bytes > READ_LEAD or (
            reach + 2 * lanes
        ) * layer.x.dtype.bytes > READ_SLACK:
            return "the window reaches too far outside of the rows"
        height, width = geometry.output_size(*layer.x.shape[2:])
        narrow = width < lanes
        if narrow and not (
            (height - 1) * layer.y.strides[2] + lanes <= layer.y.strides[1] and has_whole_lines(layer.y)
        ):
            return "rows are shorter than a vector, and planes have no room for what is stored behind the last"
        rows = min(ROWS if machine.isa.registers >= 32 else 2, height)
        schedule = DirectSchedule(rows, narrow)
        vectors = -(-height // rows) * -(-width // lanes) * layer.x.shape[0] * len(weight)
        return [
            Candidate(
                schedule, _block_work(layer, schedule) * vectors + machine.beyond(layer.x, layer.y, layer.residual)
            )
        ]

    def emit(self, layer: Conv2d, schedule: DirectSchedule, b: ProgramBuilder) -> None:
        """``layer.groups`` is the number of input channels, ``layer.weight`` a dense (O, 1, kh, kw) array."""
        weight, x, geometry = layer.weight, layer.x, layer.geometry
        assert isinstance(weight, np.ndarray)
        filters = weight.shape[0]
        height, width = geometry.output_size(*x.shape[2:])
        masks = column_masks(geometry, x.shape[3], width, b.isa.lanes(x.dtype))
        below = x.shape[2] + geometry.padding[0] - (height - schedule.rows) * geometry.stride[0]
        kernel = ConvDepthwiseDirect(
            geometry.window,
            geometry.stride,
            geometry.dilation,
            geometry.padding[:2],
            min(below, _lines(geometry, schedule.rows)),
            schedule.rows,
            schedule.narrow,
            tuple(bool((masks[:, tap] == 0).any()) for tap in range(geometry.window[1])),
            b.isa.lanes(x.dtype),
            Epilogue(layer.residual is not None, layer.activation),
        )
        args: dict[str, View | int | float] = {
            "x": x,
            **dict(zip(("x_image", "x_plane", "pitch"), x.strides, strict=False)),
            "x_height": x.shape[2],
            "x_width": x.shape[3],
            "w": b.constant(f"{layer.name}.weight", weight.reshape(filters, -1)),
            **b.named_constants(layer.name, channel_arrays(layer)),
            "masks": b.constant(f"{layer.name}.masks", masks),
            "filters": filters,
            "multiplier": filters // layer.groups,
            "height": height,
            "width": width,
            **epilogue_strides(layer.y, layer.residual),
        }
        b.call(
            kernel, args, work=x.shape[0] * filters, macs=x.shape[0] * weight.size * height * width, arithmetic=x.dtype
        )


FAMILY = DirectFamily()


def column_masks(geometry: ConvGeometry, x_width: int, width: int, lanes: int) -> np.ndarray:
    """int32 (V, kw, lanes): -1 where a tap of the outputs of a vector of a row is inside, else 0. The last vector
    begins early."""
    vectors = -(-width // lanes)
    first = np.minimum(np.arange(vectors) * lanes, max(0, width - lanes))
    taps = np.arange(geometry.window[1]) * geometry.dilation[1] - geometry.padding[1]
    column = (first[:, None, None] + np.arange(lanes)) * geometry.stride[1] + taps[:, None]
    return np.where((column >= 0) & (column < x_width), -1, 0).astype(np.int32)


def _lines(geometry: ConvGeometry, rows: int) -> int:
    """Rows of the padded input from the first to the last that so many rows of outputs use."""
    return (rows - 1) * geometry.stride[0] + (geometry.window[0] - 1) * geometry.dilation[0] + 1


def _block_work(layer: Conv2d, schedule: DirectSchedule) -> Work:
    """One vector of each row of a block."""
    (kh, kw), stride = layer.geometry.window, layer.geometry.stride
    lines = len({row * stride[0] + u * layer.geometry.dilation[0] for row in range(schedule.rows) for u in range(kh)})
    loads = kw if stride[1] == 1 else 2 * (kw // 2 + 1)
    return Work(fma=kh * kw * schedule.rows, crossing=lines * loads, stores=schedule.rows, scalars=schedule.rows)


@dataclass(frozen=True)
class ConvDepthwiseDirect:
    """``padding`` is (top, left). Of the rows of the padded input that a block uses, the first ``padding[0]`` can be
    above the image, those from ``below`` on below it; ``masked`` says for each column of the window whether it can be
    outside.
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

    @property
    def name(self) -> str:
        window = "_".join(
            f"{name}{a}x{b}"
            for name, (a, b) in zip("ksdp", (self.kernel, self.stride, self.dilation, self.padding), strict=True)
        )
        masked = "".join(str(int(flag)) for flag in self.masked)
        width = "narrow" if self.narrow else "wide"
        tile = f"{width}{self.rows}x{self.lanes}"
        return f"pcc_conv_depthwise_direct_{window}_{self.below}_{masked}_{tile}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        residual = (Param("residual", "f32*"),) if self.epilogue.residual else ()
        numbers = (
            "x_image",
            "x_plane",
            "pitch",
            "x_height",
            "x_width",
            "filters",
            "multiplier",
            "height",
            "width",
            "y_image",
            "y_plane",
            "y_row",
        )
        strides = ("r_image", "r_plane", "r_row") if self.epilogue.residual else ()
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
            channel, _ = k.divide(filter, k["multiplier"])
            x = k.pointer(k["x"], image * k["x_image"] + channel * k["x_plane"])
            y = k.pointer(k["y"], image * k["y_image"] + filter * k["y_plane"])
            residual = (
                k.pointer(k["residual"], image * k["r_image"] + filter * k["r_plane"])
                if self.epilogue.residual
                else None
            )
            bias, parameter = k.let(k.load(k["bias"], filter)), self.epilogue.parameter(k, filter)
            weights = [k.let(k.load(k["w"], filter * taps + tap)) for tap in range(taps)]
            last_line = max(self._users()) - self.padding[0]
            last_column = (k.lanes - 1) * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1] - self.padding[1]
            blocks, _ = k.divide(k["height"] + (self.rows - 1), self.rows)
            with k.loop(0, blocks) as block:
                row = k.let(tirx.Min(block * self.rows, k["height"] - self.rows))
                compute = partial(self._vector, k, x, y, residual, bias, parameter, weights, row)
                if self.narrow:
                    compute(0, 0, masks=k["masks"])
                else:
                    vectors = k.divide(k["width"] + (k.lanes - 1), k.lanes)[0]
                    with k.loop(0, vectors) as vector:
                        i = k.let(tirx.Min(vector * k.lanes, k["width"] - k.lanes))
                        inside = tirx.all(
                            row * self.stride[0] >= self.padding[0],
                            row * self.stride[0] + last_line < k["x_height"],
                            i * self.stride[1] >= self.padding[1],
                            i * self.stride[1] + last_column < k["x_width"],
                        )
                        with k.when_else(inside) as (then, otherwise):
                            with then:
                                compute(i, vector, masks=None)
                            with otherwise:
                                compute(i, vector, masks=k["masks"])

    def _vector(
        self,
        k: "KernelBuilder",
        x: "Buffer",
        y: "Buffer",
        residual: "Buffer | None",
        bias: "Expr",
        parameter: "Expr | None",
        weights: "list[Expr]",
        row: "Expr",
        i: "Expr",
        vector: "Expr",
        masks: "Buffer | None",
    ) -> None:
        """The vector at column ``i`` of each row of a block. Without ``masks`` all of its taps are inside."""
        kw = self.kernel[1]
        sums = [k.let(k.splat(bias, k.lanes))] * self.rows
        columns = (
            []
            if masks is None
            else [
                k.let(k.load(masks, (vector * kw + v) * k.lanes, k.lanes)) if flag else None
                for v, flag in enumerate(self.masked)
            ]
        )
        for line, users in sorted(self._users().items()):
            for v, value in enumerate(self._taps(k, x, row, line, i, None if masks is None else columns)):
                for r, u in users:
                    sums[r] = k.let(sums[r] + k.splat(weights[u * kw + v], k.lanes) * value)
        for r, value in enumerate(sums):
            at = k.let(i + (row + r) * k["y_row"])
            addend = None if residual is None else k.load(residual, i + (row + r) * k["r_row"], k.lanes)
            k.store(y, at, self.epilogue.apply(k, value, addend, k.lanes, parameter), k.lanes)

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
        if columns is not None and (line < self.padding[0] or line >= self.below):
            at = k.let(at)
            is_inside = k.let(
                tirx.Select(
                    tirx.And(at >= 0, at < k["x_height"]), tirx.const(-1, INT32.tir()), tirx.const(0, INT32.tir())
                )
            )
            at = tirx.Max(tirx.Min(at, k["x_height"] - 1), tirx.const(0, INT32.tir()))
        source = k.pointer(x, at * k["pitch"] + i * self.stride[1])
        found, pairs = [], {}
        for v in range(self.kernel[1]):
            column = v * self.dilation[1] - self.padding[1]
            if self.stride[1] == 1:
                value = k.let(k.load(source, column, k.lanes))
            else:
                even = column - column % 2
                if even not in pairs:
                    pairs[even] = [k.let(k.load(source, even + part, k.lanes)) for part in (0, k.lanes)]
                value = k.let(k.shuffle(pairs[even], list(range(column % 2, 2 * k.lanes, 2))))
            mask = columns[v] if columns else None
            if is_inside is not None:
                mask = k.splat(is_inside, k.lanes) if mask is None else mask & k.splat(is_inside, k.lanes)
            found.append(value if mask is None else k.let(k.mask(value, mask, k.lanes)))
        return found

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, w, bias, masks, y = (np.asarray(args[name]) for name in ("x", "w", "bias", "masks", "y"))
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        (kh, kw), row = self.kernel, np.arange(n["height"])[:, None]
        for item in range(begin, end):
            image, filter = divmod(item, n["filters"])
            plane = image * n["x_image"] + filter // n["multiplier"] * n["x_plane"]
            for vector, start in enumerate(range(0, n["width"], self.lanes)):
                first = max(0, min(start, n["width"] - self.lanes))
                column = np.arange(first, min(first + self.lanes, n["width"]))
                sums = np.full((n["height"], len(column)), bias[filter])
                for u, v in product(range(kh), range(kw)):
                    source = row * self.stride[0] + u * self.dilation[0] - self.padding[0]
                    at = plane + source * n["pitch"] + column * self.stride[1] + v * self.dilation[1] - self.padding[1]
                    kept = masks[(vector * kw + v) * self.lanes + column - first] != 0
                    kept = kept & (source >= 0) & (source < n["x_height"])
                    sums += w[filter * kh * kw + u * kw + v] * np.where(kept, x[np.where(kept, at, 0)], 0)

                def at_of(
                    name: str, image: int = image, filter: int = filter, column: np.ndarray = column
                ) -> np.ndarray:
                    return image * n[f"{name}_image"] + filter * n[f"{name}_plane"] + row * n[f"{name}_row"] + column

                residual = np.asarray(args["residual"])[at_of("r")] if self.epilogue.residual else None
                parameter = self.epilogue.reference_parameter(args, filter)
                y[at_of("y")] = self.epilogue.reference(sums, residual, parameter)
