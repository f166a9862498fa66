"""The kernel of Winograd convolution: transforms inputs, multiplies, transforms back, all in the memory of a thread.

Tiles of the image lie in the lanes of vectors. An item is some vectors of tiles (a *block*) and some filters (a
*chunk*): for a block, its inputs of all channels are transformed once and stay in the thread's memory while it goes
through the chunks, one item after the other. Each of the (m+2)^2 places of a transformed tile is then a matrix product
of its own, of filters x channels by channels x tiles (see `gemm_tile`).

Four neighbouring columns of a tile come and go as a quarter of a vector, and change places with lanes in registers (see
`transpose`). Where four tiles beside each other fill a vector, in *runs*, they come as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.gemm_tile import GemmTile
from pcc.codegen.kernels.linear_map import apply
from pcc.codegen.kernels.runs import run_tail
from pcc.codegen.kernels.tile_store import pieces, pooled
from pcc.codegen.kernels.transpose import QUARTER, split_lanes, transpose, transpose_quarters
from pcc.codegen.kernels.winograd_forms import Form
from pcc.dtype import INT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

TILE_FIELDS = ("row", "column", "rows", "columns", "y_at", "r_at")
"""What a kernel knows of a tile: the first row and column of the input it reads, which may lie outside; how many rows
and columns of ``y`` are there; where they begin in a plane of ``y``, and of the residual."""


@dataclass(frozen=True)
class _Residual:
    """What is added to a channel's outputs before its activation, which has that parameter."""

    values: "Buffer"
    parameter: "Expr | None"

    def at(self, k: "KernelBuilder", offset: "Expr") -> "_Residual":
        return replace(self, values=k.pointer(self.values, offset))


@dataclass(frozen=True)
class WinogradTile:
    """``values`` and ``products`` are memory of the thread: transformed inputs (places, vectors in groups of those of
    the inner loop, channels, vectors of a group, lanes), each place ``values_place`` from the one before, and what is
    multiplied (filters, places, vectors of a block, lanes).

    Of the inputs of a tile, the first and last rows and columns may lie outside the image, and read as zero: ``left``
    and ``right`` columns in some tile, and the rows outside [whole_begin, whole_end).
    """

    form: Form
    gemm: GemmTile
    lanes: int
    vectors: int
    """Of a block."""
    left: int
    right: int
    epilogue: Epilogue
    runs: bool = False
    window: tuple[int, int] = (1, 1)
    """Rows and columns of outputs of which only the maximum is stored; they divide those of a tile, and the plane."""

    @property
    def name(self) -> str:
        m, runs = self.form.outputs, "_runs" if self.runs else ""
        pool = "" if self.window == (1, 1) else f"_max{self.window[0]}x{self.window[1]}"
        shape = f"f{m}_{self.gemm.symbol}x{self.lanes}_b{self.vectors}_{self.left}_{self.right}"
        return f"pcc_conv_winograd_{shape}_{self.epilogue.symbol}{pool}{runs}"

    @property
    def params(self) -> tuple[Param, ...]:
        pointers = [
            Param("x", "f32*"),
            Param("x_at", "i32*"),
            Param("tiles", "i32*"),
            Param("whole", "i32*"),
            Param("w", "f32*"),
            *self.epilogue.params,
        ]
        pointers += [
            Param("values", "f32*", writes=True),
            Param("products", "f32*", writes=True),
            Param("y", "f32*", writes=True),
        ]
        numbers = [
            "groups",
            "channels",
            "filters",
            "height",
            "width",
            "x_image",
            "x_group",
            "x_plane",
            "y_image",
            "y_plane",
            "y_row",
        ]
        numbers += [
            "whole_begin",
            "whole_end",
            "vectors",
            "blocks",
            "panels",
            "panels_per_chunk",
            "chunks",
            "values_place",
        ]
        if self.epilogue.residual:
            pointers.append(Param("residual", "f32*"))
            numbers += ["r_image", "r_plane", "r_row"]
        return (*pointers, *(Param(name) for name in numbers))

    @property
    def places(self) -> int:
        return self.form.inputs**2

    @property
    def stored(self) -> tuple[int, int]:
        """(rows, columns) that a tile leaves in ``y``."""
        return self.form.outputs // self.window[0], self.form.outputs // self.window[1]

    @property
    def starts(self) -> int:
        """How many loads a row of the inputs of a vector of tiles takes, for four columns of each."""
        return QUARTER if self.runs else self.lanes

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        sums = k.local(self.gemm.filters * self.gemm.vectors * self.lanes)
        between = k.local(self.places * self.lanes)
        row_masks = k.local(self.form.inputs * self.lanes, INT32)
        spilled = k.local(self.stored[0] * self.stored[1] * self.lanes)
        with k.work() as item:
            rest, chunk = k.divide(item, k["chunks"])
            rest, block = k.divide(rest, k["blocks"])
            image, group = k.divide(rest, k["groups"])
            first = k.let(block * self.vectors)
            vectors = k.let(math.smaller(k["vectors"] - first, self.vectors))
            with k.when(tirx.Or(chunk == 0, item == k.begin)), k.loop(0, vectors) as vector:
                source = k.let(image * k["x_image"] + group * k["x_group"])
                self._transform_inputs(k, k.let(first + vector), vector, vectors, source, between, row_masks)
            first_panel = k.let(chunk * k["panels_per_chunk"])
            panels = k.let(tirx.Min(k["panels"] - first_panel, k["panels_per_chunk"]))
            self._multiply(k, k.let(group * k["chunks"] + chunk), panels, vectors, sums)
            first_filter = k.let(first_panel * self.gemm.filters)
            with (
                k.loop(0, tirx.Min(k["filters"] - first_filter, panels * self.gemm.filters)) as f,
                k.loop(0, vectors) as vector,
            ):
                self._transform_outputs(
                    k,
                    f,
                    vector,
                    k.let(first + vector),
                    k.let(group * k["filters"] + first_filter + f),
                    image,
                    between,
                    spilled,
                )

    def _tile(self, k: "KernelBuilder", vector: "Expr", field: str) -> "Expr":
        """Where a vector's lanes have a field of `TILE_FIELDS`."""
        return k.let((vector * len(TILE_FIELDS) + TILE_FIELDS.index(field)) * self.lanes)

    # ---- inputs ----

    def _transform_inputs(
        self,
        k: "KernelBuilder",
        tiles: "Expr",
        vector: "Expr",
        vectors: "Expr",
        source: "Expr",
        between: "Buffer",
        row_masks: "Buffer",
    ) -> None:
        """Puts ``B' d B`` of a vector of tiles, of all channels of a group, into ``values``."""
        from tvm import tirx

        lanes, size = self.lanes, self.form.inputs
        first_row, first_column = (
            k.let(k.load(k["tiles"], self._tile(k, tiles, field), lanes)) for field in ("row", "column")
        )
        with k.loop(0, size) as row:
            k.store(row_masks, row * lanes, _inside(k, first_row + k.splat(row, lanes), k["height"], lanes), lanes)
        columns = (*range(self.left), *range(size - self.right, size))
        masks = {
            column: k.let(_inside(k, first_column + k.splat(_int(column), lanes), k["width"], lanes))
            for column in columns
        }
        _, few, wide = self._groups(k, vectors)
        narrow_from = k.let(wide * (few + 1))
        width = k.let(tirx.Select(vector < narrow_from, few + 1, few))
        _, place = k.divide(k.let(tirx.Select(vector < narrow_from, vector, vector - narrow_from)), width)
        target = k.let(((vector - place) * k["channels"] + place) * lanes)
        with k.loop(0, k["channels"]) as channel:
            plane = k.pointer(k["x"], k.let(source + channel * k["x_plane"]))
            for begin, end in ((0, k["whole_begin"]), (k["whole_begin"], k["whole_end"]), (k["whole_end"], size)):
                with k.loop(begin, end) as row:
                    values = self._row_of_inputs(k, plane, k.let((tiles * size + row) * self.starts), masks)
                    if end is not k["whole_end"]:
                        mask = k.let(k.load(row_masks, row * lanes, lanes))
                        values = [k.let(k.mask(value, mask, lanes)) for value in values]
                    for column, value in enumerate(apply(k, self.form.input_matrix, values)):
                        k.store(between, (row * size + column) * lanes, value, lanes)
            into = k.pointer(k["values"], k.let(target + channel * (width * lanes)))
            with k.loop(0, size) as column:
                values = [k.let(k.load(between, (row * size + column) * lanes, lanes)) for row in range(size)]
                for row, value in enumerate(apply(k, self.form.input_matrix, values)):
                    k.store(into, (row * size + column) * k["values_place"], value, lanes)

    def _row_of_inputs(
        self, k: "KernelBuilder", plane: "Buffer", at: "Expr", masks: "Mapping[int, Expr]"
    ) -> "list[Expr]":
        """One vector for each column of the tiles' inputs, in one row of them."""
        starts = [k.pointer(plane, k.load(k["x_at"], at + start)) for start in range(self.starts)]
        values: list[Expr] = []
        for first in range(0, self.form.inputs, QUARTER):
            if self.runs:
                columns = transpose(k, [k.let(k.load(start, first, self.lanes)) for start in starts], self.lanes)
            else:
                columns = transpose_quarters(k, [k.load(start, first, QUARTER) for start in starts])
            values += columns[: self.form.inputs - first]
        return [
            k.let(k.mask(value, masks[column], self.lanes)) if column in masks else value
            for column, value in enumerate(values)
        ]

    # ---- products ----

    def _multiply(self, k: "KernelBuilder", chunk: "Expr", panels: "Expr", vectors: "Expr", sums: "Buffer") -> None:
        """All places of the filters of a chunk and the tiles of a block."""
        from tvm import tirx

        lanes, m, pitch = self.lanes, self.gemm.filters, self.vectors * self.lanes
        groups, few, wide = self._groups(k, vectors)
        with k.loop(0, self.places) as place, k.loop(0, panels) as panel:
            weights = k.pointer(
                k["w"], k.let(((chunk * self.places + place) * k["panels_per_chunk"] + panel) * k["channels"] * m)
            )
            with k.loop(0, groups) as group:
                first = k.let((group * few + math.smaller(group, wide)) * lanes)
                values = k.pointer(k["values"], k.let(place * k["values_place"] + first * k["channels"]))
                into = k.pointer(k["products"], k.let((panel * (m * self.places) + place) * pitch + first))
                for width in range(1, self.gemm.vectors + 1):
                    with k.when(
                        tirx.Or(tirx.And(group < wide, few + 1 == width), tirx.And(group >= wide, few == width))
                    ):
                        replace(self.gemm, vectors=width).multiply(k, weights, values, k["channels"], sums)
                        for f, v in product(range(m), range(width)):
                            value = k.load(sums, (f * width + v) * lanes, lanes)
                            k.store(into, f * (self.places * pitch) + v * lanes, value, lanes)

    def _groups(self, k: "KernelBuilder", vectors: "Expr") -> "tuple[Expr, Expr, Expr]":
        """A block's vectors in as few groups as the inner loop takes, all of nearly one size: how many, the size, and
        how many of the first have one more."""
        groups, _ = k.divide(vectors + (self.gemm.vectors - 1), self.gemm.vectors)
        few, wide = k.divide(vectors, groups)
        return groups, few, wide

    # ---- outputs ----

    def _transform_outputs(
        self,
        k: "KernelBuilder",
        f: "Expr",
        vector: "Expr",
        tiles: "Expr",
        channel: "Expr",
        image: "Expr",
        between: "Buffer",
        spilled: "Buffer",
    ) -> None:
        """``A' m A`` of one filter and a vector of tiles, to ``y``."""
        lanes, m, size, pitch = self.lanes, self.form.outputs, self.form.inputs, self.vectors * self.lanes
        source = k.pointer(k["products"], k.let(f * (self.places * pitch) + vector * lanes))
        with k.loop(0, size) as column:
            values = [k.let(k.load(source, (row * size + column) * pitch, lanes)) for row in range(size)]
            for row, value in enumerate(apply(k, self.form.output_matrix, values)):
                k.store(between, (row * size + column) * lanes, value, lanes)
        bias = k.let(k.splat(k.load(k["bias"], channel), lanes))
        lines = []
        for row in range(m):
            values = [k.let(k.load(between, (row * size + column) * lanes, lanes)) for column in range(size)]
            lines += [k.let(value + bias) for value in apply(k, self.form.output_matrix, values)]
        parameter = self.epilogue.parameter(k, channel)
        if not self.epilogue.residual:
            done = [k.let(self.epilogue.apply(k, line, None, lanes, parameter)) for line in lines]
            lines = pooled(k, done, m, self.window)
        y = k.pointer(k["y"], k.let(image * k["y_image"] + channel * k["y_plane"]))
        residual = (
            _Residual(k.pointer(k["residual"], k.let(image * k["r_image"] + channel * k["r_plane"])), parameter)
            if self.epilogue.residual
            else None
        )
        with k.when_else(k.load(k["whole"], tiles) == 1) as (then, otherwise):
            with then:
                self._store_whole(k, lines, y, residual, tiles)
            with otherwise:
                self._store_parts(k, lines, y, residual, tiles, spilled)

    def _store_whole(
        self, k: "KernelBuilder", lines: "list[Expr]", y: "Buffer", residual: "_Residual | None", tiles: "Expr"
    ) -> None:
        """Tiles that lie in the plane as a whole."""
        y_at, r_at = self._tile(k, tiles, "y_at"), self._tile(k, tiles, "r_at")
        starts = [
            (
                k.pointer(y, k.load(k["tiles"], y_at + start)),
                None if residual is None else residual.at(k, k.load(k["tiles"], r_at + start)),
            )
            for start in range(QUARTER if self.runs and self.stored[1] == QUARTER else self.lanes)
        ]
        if self.runs and self.stored[1] == QUARTER:
            for row in range(self.stored[0]):
                for start, vector in zip(
                    starts, transpose(k, lines[row * QUARTER : (row + 1) * QUARTER], self.lanes), strict=True
                ):
                    self._store(k, vector, *start, row, 0, self.lanes)
            return
        for members, runs in pieces(*self.stored):
            quarters = self._split(k, [lines[member] for member in members])
            for (row, first, width, place), lane in product(runs, range(self.lanes)):
                self._store(k, k.part(quarters[lane], place, width), *starts[lane], row, first, width)

    def _store_parts(
        self,
        k: "KernelBuilder",
        lines: "list[Expr]",
        y: "Buffer",
        residual: "_Residual | None",
        tiles: "Expr",
        spilled: "Buffer",
    ) -> None:
        """Tiles of which rows or columns may lie beyond the plane."""
        height, width = self.stored
        whole_row = {(first, count) for _, runs in pieces(height, width) for row, first, count, _ in runs if row == 0}
        for members, runs in pieces(height, width):
            quarters = self._split(k, [lines[member] for member in members])
            for (row, first, count, place), lane in product(runs, range(self.lanes)):
                k.store(spilled, (lane * height + row) * width + first, k.part(quarters[lane], place, count), count)
        places = {field: self._tile(k, tiles, field) for field in ("rows", "columns", "y_at", "r_at")}
        with k.loop(0, self.lanes) as lane:
            rows, columns, y_at, r_at = (k.let(k.load(k["tiles"], place + lane)) for place in places.values())
            start = k.pointer(y, y_at), None if residual is None else residual.at(k, r_at)

            def store(row: "Expr", column: "Expr", count: int) -> None:
                value = k.load(spilled, (lane * height + row) * width + column, count)
                self._store(k, value, *start, row, column, count)

            with k.when_else(columns == width) as (then, otherwise):
                with then, k.loop(0, rows) as row:
                    for column, count in sorted(whole_row):
                        store(row, column, count)
                with otherwise, k.loop(0, rows) as row:
                    run_tail(k, columns, partial(store, row), 2 * QUARTER)

    def _split(self, k: "KernelBuilder", vectors: "list[Expr]") -> "list[Expr]":
        """For each lane, its elements of the vectors."""
        return (
            split_lanes(k, vectors, self.lanes)
            if len(vectors) == QUARTER
            else [k.part(vectors[0], lane, 1) for lane in range(self.lanes)]
        )

    def _store(
        self,
        k: "KernelBuilder",
        value: "Expr",
        y: "Buffer",
        residual: "_Residual | None",
        row: "Expr",
        column: "Expr",
        lanes: int,
    ) -> None:
        """Stores ``lanes`` outputs of a tile that begins at ``y``, and its residual at ``residual``."""
        if residual is not None:
            addend = k.load(residual.values, row * k["r_row"] + column, lanes)
            value = self.epilogue.apply(k, value, addend, lanes, residual.parameter)
        k.store(y, row * k["y_row"] + column, value, lanes)

    # ---- on numpy ----

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        x, w, bias, y = (np.asarray(args[name]) for name in ("x", "w", "bias", "y"))
        size, m, filters = self.form.inputs, self.form.outputs, self.gemm.filters
        a, b = (np.array(matrix, np.float32) for matrix in (self.form.output_matrix, self.form.input_matrix))
        tiles = np.asarray(args["tiles"])[: n["vectors"] * len(TILE_FIELDS) * self.lanes].reshape(
            n["vectors"], len(TILE_FIELDS), self.lanes
        )
        starts = np.asarray(args["x_at"])[: n["vectors"] * size * self.starts].reshape(n["vectors"], size, self.starts)
        if self.runs:
            starts = np.concatenate([starts + quarter * QUARTER for quarter in range(self.lanes // QUARTER)], axis=2)
        step = np.arange(size)
        for item in range(begin, end):
            rest, chunk = divmod(item, n["chunks"])
            rest, block = divmod(rest, n["blocks"])
            image, group = divmod(rest, n["groups"])
            panels = range(chunk * n["panels_per_chunk"], min((chunk + 1) * n["panels_per_chunk"], n["panels"]))
            weight = w[(group * n["chunks"] + chunk) * self.places * n["panels_per_chunk"] * n["channels"] * filters :]
            weight = weight[: self.places * n["panels_per_chunk"] * n["channels"] * filters]
            weight = weight.reshape(self.places, n["panels_per_chunk"], n["channels"], filters)[
                :, : len(panels)
            ].transpose(0, 1, 3, 2)
            for vector in range(block * self.vectors, min((block + 1) * self.vectors, n["vectors"])):
                tile = dict(zip(TILE_FIELDS, tiles[vector], strict=True))
                inside = (
                    _exists(tile["row"], size, n["height"])[:, :, None]
                    & _exists(tile["column"], size, n["width"])[:, None]
                )
                at = np.where(inside, starts[vector].T[:, :, None] + step, 0)  # (lanes, size, size)
                planes = (
                    image * n["x_image"]
                    + group * n["x_group"]
                    + np.arange(n["channels"])[:, None, None, None] * n["x_plane"]
                )
                values = b @ np.where(inside, x[planes + at], np.float32(0)) @ b.T  # (channels, lanes, size, size)
                values = values.transpose(2, 3, 0, 1).reshape(self.places, 1, n["channels"], self.lanes)
                products = (weight @ values).reshape(size, size, -1, self.lanes).transpose(2, 3, 0, 1)
                outputs = a @ products @ a.T  # (filters of the chunk, lanes, m, m)
                for f, lane in product(
                    range(min(outputs.shape[0], n["filters"] - panels.start * filters)), range(self.lanes)
                ):
                    channel = group * n["filters"] + panels.start * filters + f
                    value = (outputs[f, lane] + bias[channel]).reshape(
                        self.stored[0], self.window[0], self.stored[1], self.window[1]
                    )
                    row, column = np.arange(tile["rows"][lane])[:, None], np.arange(tile["columns"][lane])
                    parameter = self.epilogue.reference_parameter(args, channel)
                    if self.epilogue.residual:
                        r = np.asarray(args["residual"])
                        residual = r[
                            image * n["r_image"]
                            + channel * n["r_plane"]
                            + tile["r_at"][lane]
                            + row * n["r_row"]
                            + column
                        ]
                        value = self.epilogue.reference(
                            value.reshape(m, m)[: row.size, : column.size], residual, parameter
                        )
                    else:
                        value = self.epilogue.reference(value, None, parameter).max((1, 3))[: row.size, : column.size]
                    y[
                        image * n["y_image"] + channel * n["y_plane"] + tile["y_at"][lane] + row * n["y_row"] + column
                    ] = value


def _exists(first: np.ndarray, size: int, extent: int) -> np.ndarray:
    """bool (lanes, size): which of ``size`` rows (columns) from ``first`` (lanes,) on lie in a plane."""
    places = first[:, None] + np.arange(size)
    return (places >= 0) & (places < extent)


def _inside(k: "KernelBuilder", places: "Expr", extent: "Expr", lanes: int) -> "Expr":
    """int32 lanes of -1 where a place lies in [0, extent), of 0 elsewhere."""
    places, sign, ones = k.let(places), k.splat(_int(31), lanes), k.splat(_int(-1), lanes)
    return ((places >> sign) | ((k.splat(extent - 1, lanes) - places) >> sign)) ^ ones


def _int(value: int) -> "Expr":
    from tvm import tirx

    return tirx.const(value, INT32.tir())
