"""Dense convolution with output positions in the lanes of vectors: a tile is some filters times a run of flat
positions.

Inputs are loaded as vectors, weights are broadcast (on NEON a vector of weights is multiplied by lane). Good for large
planes and for groups with few filters. Inputs are staged (see `stage`), so that one offset a tap serves all positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.dense_work import (
    WORK_PARAMS,
    Tile,
    conv_reference,
    items_reference,
    loop_over_depth,
    pointer_params,
    stride_params,
    tiles_of_work,
)
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.runs import exact_run

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class ConvPositions:
    """Tiles of ``filters`` filters times ``vectors`` vectors of ``lanes`` positions.

    ``prefetch``: the cache lines of a tile's outputs, and of the inputs of the next tile, are asked for while it is
    computed. ``steps`` of the depth are written out in the inner loop. ``by_rows``: tiles do not go on in the next row,
    so that no junk column is between outputs; the last of a row begins early, as in `ConvFilters`.
    """

    filters: int
    vectors: int
    lanes: int
    epilogue: Epilogue
    prefetch: bool = False
    steps: int = 1
    by_rows: bool = False

    @property
    def name(self) -> str:
        ahead = "_ahead" if self.prefetch else ""
        steps = f"_by{self.steps}" if self.steps > 1 else ""
        form = "row_positions" if self.by_rows else "positions"
        return f"pcc_conv_{form}_{self.filters}x{self.vectors * self.lanes}_{self.epilogue.symbol}{ahead}{steps}"

    @property
    def params(self) -> tuple[Param, ...]:
        across = (Param("across"),) if self.by_rows else ()
        rows = (Param("positions"), Param("pitch"), Param("width"), *across)
        return *pointer_params(self.epilogue), *stride_params(self.epilogue), *rows, *WORK_PARAMS

    @property
    def run(self) -> int:
        """Positions of a tile."""
        return self.vectors * self.lanes

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        acc = k.local(self.filters * self.run)
        spilled = k.local(self.filters * self.run)
        with tiles_of_work(k, self.filters, self.epilogue.residual) as at:
            if self.by_rows:
                row, number = k.divide(at.tile, k["across"])
                column = k.let(tirx.Min(number * self.run, k["width"] - self.run))
                position = k.let(row * k["pitch"] + column)
            else:
                position = k.let(at.tile * self.run)
                row, column = k.divide(position, k["pitch"])
            self._begin(k, acc, at)
            if self.prefetch:
                self._multiply_ahead(k, acc, at, position, row, column)
            else:
                self._multiply(k, acc, at, position, 0, k["depth"])
            inside = tirx.And(column + self.run <= k["width"], (at.block + 1) * self.filters <= k["filters"])
            with k.when_else(inside) as (then, otherwise):
                with then:
                    self._store_whole(k, acc, at, row, column)
                with otherwise:
                    for index in range(0, self.filters * self.run, self.lanes):
                        k.store(spilled, index, k.load(acc, index, self.lanes), self.lanes)
                    self._store_by_rows(k, spilled, at, position, row)

    def _begin(self, k: "KernelBuilder", acc: "Buffer", at: Tile) -> None:
        """acc = bias."""
        for m in range(self.filters):
            start = k.let(k.splat(k.load(k["bias"], at.panel * self.filters + m), self.lanes))
            for v in range(self.vectors):
                k.store(acc, (m * self.vectors + v) * self.lanes, start, self.lanes)

    def _multiply_ahead(
        self, k: "KernelBuilder", acc: "Buffer", at: Tile, position: "Expr", row: "Expr", column: "Expr"
    ) -> None:
        """All of the depth, in as many parts as there are filters: each asks for the outputs of one of them."""
        from tvm import tirx

        part = k.let(k.divide(k["depth"] + (self.filters - 1), self.filters)[0])
        y = k.let(at.y + row * k["y_row"] + column)
        residual = k.let(at.residual + row * k["r_row"] + column) if self.epilogue.residual else 0
        with k.loop(0, self.filters) as m:
            for v in range(0, self.run, self.lanes):
                k.prefetch(k["y"], y + m * k["y_plane"] + v, write=True)
                if self.epilogue.residual:
                    k.prefetch(k["residual"], residual + m * k["r_plane"] + v, write=False)
            self._multiply(k, acc, at, position, m * part, k.let(tirx.Min((m + 1) * part, k["depth"])))

    def _multiply(
        self, k: "KernelBuilder", acc: "Buffer", at: Tile, position: "Expr", first: "Expr", end: "Expr"
    ) -> None:
        """Adds the products of weights and inputs from ``first`` to ``end`` of the depth."""
        lanes = self.lanes
        by_lane = k.isa.multiply_add(k.real).by_lane and self.filters % lanes == 0
        source, weights = k.pointer(k["x"], at.x + position), k.pointer(k["w"], at.panel * k["depth"] * self.filters)
        following, ahead = (
            k.pointer(k["x"], at.x + position + self.run + at.block % self.vectors * lanes),
            k.pointer(k["w"], at.ahead),
        )

        def step(depth: "Expr") -> None:
            offset = k.let(k.wide(k.load(k["offsets"], depth)))
            if self.prefetch:
                k.prefetch(following, offset, write=False)
                k.prefetch(ahead, depth * k.wide(k["share_ahead"]), write=False)
            inputs = [k.let(k.load(source, offset + v * lanes, lanes)) for v in range(self.vectors)]
            panel = depth * self.filters
            quads = [k.let(k.load(weights, panel + q, lanes)) for q in range(0, self.filters, lanes)] if by_lane else []
            for m in range(self.filters):
                weight = (
                    k.lane(quads[m // lanes], m % lanes, lanes)
                    if by_lane
                    else k.let(k.splat(k.load(weights, panel + m), lanes))
                )
                for v in range(self.vectors):
                    index = (m * self.vectors + v) * lanes
                    k.store(acc, index, k.load(acc, index, lanes) + weight * inputs[v], lanes)

        loop_over_depth(k, first, end, self.steps, step)

    def _store_whole(self, k: "KernelBuilder", acc: "Buffer", at: Tile, row: "Expr", column: "Expr") -> None:
        """The tile lies within one output row: vectors go straight to memory."""
        y = k.pointer(k["y"], at.y + row * k["y_row"] + column)
        residual = k.pointer(k["residual"], at.residual + row * k["r_row"] + column) if self.epilogue.residual else None
        for m in range(self.filters):
            target = k.pointer(y, m * k["y_plane"])
            addend = None if residual is None else k.pointer(residual, m * k["r_plane"])
            parameter = self.epilogue.parameter(k, at.panel * self.filters + m)
            for v in range(0, self.run, self.lanes):
                value = k.load(acc, m * self.run + v, self.lanes)
                added = None if addend is None else k.load(addend, v, self.lanes)
                k.store(target, v, self.epilogue.apply(k, value, added, self.lanes, parameter), self.lanes)

    def _store_by_rows(self, k: "KernelBuilder", tile: "Buffer", at: Tile, position: "Expr", first_row: "Expr") -> None:
        """The pieces of output rows in the tile, without junk columns, for the filters that exist."""
        from tvm import tirx

        end = k.let(tirx.min(position + self.run, k["positions"]))
        last_row, _ = k.divide(end - 1, k["pitch"])
        with (
            k.loop(0, tirx.min(k["filters"] - at.block * self.filters, self.filters)) as m,
            k.loop(first_row, last_row + 1) as row,
        ):
            start = k.let(tirx.max(row * k["pitch"], position))
            count = k.let(tirx.max(tirx.min(row * k["pitch"] + k["width"], end) - start, 0))
            column = k.let(start - row * k["pitch"])
            held = k.let(m * self.run + start - position)
            target = k.let(at.y + m * k["y_plane"] + row * k["y_row"] + column)
            addend = k.let(at.residual + m * k["r_plane"] + row * k["r_row"] + column) if self.epilogue.residual else 0
            parameter = self.epilogue.parameter(k, at.panel * self.filters + m)

            def move(i: "Expr", lanes: int) -> None:
                residual = k.load(k["residual"], addend + i, lanes) if self.epilogue.residual else None
                value = self.epilogue.apply(k, k.load(tile, held + i, lanes), residual, lanes, parameter)
                k.store(k["y"], target + i, value, lanes)

            exact_run(k, count, move)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        positions, pitch, width = (int(args[name]) for name in ("positions", "pitch", "width"))
        for image, group, filters, tiles in items_reference(args, begin, end, self.filters):
            if self.by_rows:
                row, number = np.divmod(np.array(tiles)[:, None], int(args["across"]))
                first = np.minimum(number * self.run, width - self.run)
                position = (row * pitch + first + np.arange(self.run)).ravel()
            else:
                position = np.arange(tiles.start * self.run, min(tiles.stop * self.run, positions))
                position = position[position % pitch < width]
            conv_reference(
                args,
                self.epilogue,
                self.filters,
                (image, group, filters),
                position,
                position // pitch,
                position % pitch,
            )
