"""Dense convolution with filters in the lanes of vectors: a tile is some vectors of filters times a run of positions of
one output row.

Weights are loaded as vectors, inputs are spread over one (on NEON a vector of inputs is multiplied by lane), so a run
may be of any length and begin anywhere: planes of 7x7 or 14x14 leave no part of a vector empty. Finished tiles are
transposed on their way to memory. Good for small planes and many filters. Inputs are staged (see `stage`), strided
ones, too: read where they are they take more cache lines than the copy does.
"""

from collections.abc import Iterator, Mapping
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
from pcc.codegen.kernels.tile_store import pieces
from pcc.codegen.kernels.transpose import QUARTER, split_lanes

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class ConvFilters:
    """Tiles of ``vectors`` vectors of ``lanes`` filters times ``positions`` neighbouring outputs of a row.

    The last tile of a row begins early and computes some outputs again; all tiles of such a row are in one item.
    ``prefetch`` and ``steps`` as in `ConvPositions`. ``weights_stay`` in the L1 cache: then none are asked for ahead.
    """

    positions: int
    vectors: int
    lanes: int
    epilogue: Epilogue
    prefetch: bool = False
    steps: int = 1
    weights_stay: bool = False

    @property
    def name(self) -> str:
        ahead = "_ahead" if self.prefetch else ""
        steps = f"_by{self.steps}" if self.steps > 1 else ""
        stay = "_stay" if self.weights_stay else ""
        return f"pcc_conv_filters_{self.filters}x{self.positions}_{self.epilogue.symbol}{ahead}{steps}{stay}"

    @property
    def params(self) -> tuple[Param, ...]:
        rows = (Param("pitch"), Param("width"), Param("across"))
        return *pointer_params(self.epilogue), *stride_params(self.epilogue), *rows, *WORK_PARAMS

    @property
    def filters(self) -> int:
        """Filters of a tile."""
        return self.vectors * self.lanes

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        sums = k.local(self.positions * self.filters)
        with tiles_of_work(k, self.filters, self.epilogue.residual, self.weights_stay) as at:
            row, across = k.divide(at.tile, k["across"])
            column = k.let(tirx.Min(across * self.positions, k["width"] - self.positions))
            x = k.pointer(k["x"], at.x + row * k["pitch"] + column)
            y = k.pointer(k["y"], at.y + row * k["y_row"] + column)
            residual = (
                k.pointer(k["residual"], at.residual + row * k["r_row"] + column) if self.epilogue.residual else None
            )
            self._begin(k, sums, at)
            if self.prefetch:
                self._multiply_ahead(k, sums, at, x, y, residual)
            else:
                self._multiply(k, sums, at, x, 0, k["depth"])
            left = k.let(k["filters"] - at.block * self.filters)
            with k.when_else(left >= self.filters) as (then, otherwise):
                with then:
                    self._store_whole(k, sums, at, y, residual)
                with otherwise:
                    self._store_some(k, sums, at, y, residual, left)

    def _begin(self, k: "KernelBuilder", sums: "Buffer", at: Tile) -> None:
        """sums (positions, filters) = bias."""
        for v in range(0, self.filters, self.lanes):
            bias = k.let(k.load(k["bias"], at.panel * self.filters + v, self.lanes))
            for p in range(self.positions):
                k.store(sums, p * self.filters + v, bias, self.lanes)

    def _multiply_ahead(
        self, k: "KernelBuilder", sums: "Buffer", at: Tile, x: "Buffer", y: "Buffer", residual: "Buffer | None"
    ) -> None:
        """All of the depth, in as many parts as there are lanes: each asks for the outputs of some filters."""
        from tvm import tirx

        part = k.let(k.divide(k["depth"] + (self.lanes - 1), self.lanes)[0])
        with k.loop(0, self.lanes) as number:
            for v in range(self.vectors):
                filter = number + v * self.lanes
                k.prefetch(y, filter * k["y_plane"] + (self.positions - 1), write=True)
                if residual is not None:
                    k.prefetch(residual, filter * k["r_plane"] + (self.positions - 1), write=False)
            self._multiply(k, sums, at, x, number * part, k.let(tirx.Min((number + 1) * part, k["depth"])))

    def _multiply(
        self, k: "KernelBuilder", sums: "Buffer", at: Tile, inputs_at: "Buffer", first: "Expr", end: "Expr"
    ) -> None:
        """Adds the products of weights and inputs from ``first`` to ``end`` of the depth."""
        lanes, run = self.lanes, self.filters
        weights = k.pointer(k["w"], at.panel * k["depth"] * run)
        ahead = k.pointer(k["w"], at.ahead) if self.prefetch and not self.weights_stay else None

        def step(depth: "Expr") -> None:
            x = k.pointer(inputs_at, k.load(k["offsets"], depth))
            if self.prefetch:
                k.prefetch(x, 2 * self.positions - 1, write=False)
            if ahead is not None:
                k.prefetch(ahead, depth * k.wide(k["share_ahead"]), write=False)
            panel = [k.let(k.load(weights, depth * run + v, lanes)) for v in range(0, run, lanes)]
            for p, value in enumerate(self._inputs(k, x)):
                for v, weight in zip(range(0, run, lanes), panel, strict=True):
                    k.store(sums, p * run + v, k.load(sums, p * run + v, lanes) + weight * value, lanes)

        loop_over_depth(k, first, end, self.steps, step)

    def _inputs(self, k: "KernelBuilder", x: "Buffer") -> Iterator["Expr"]:
        """The inputs of all positions, each in all lanes, one after the other: few wait in registers."""
        for first in range(0, self.positions, self.lanes):
            places = range(min(self.lanes, self.positions - first))
            if k.isa.multiply_add(k.real).by_lane:
                vector = k.let(k.load(x, first, self.lanes))
                yield from (k.lane(vector, place, self.lanes) for place in places)
            else:
                yield from (k.let(k.splat(k.load(x, first + place), self.lanes)) for place in places)

    def _store_whole(
        self, k: "KernelBuilder", sums: "Buffer", at: Tile, y: "Buffer", residual: "Buffer | None"
    ) -> None:
        """All filters exist: four positions of as many filters as a vector has lanes change places, and go to memory
        filter by filter."""
        for v in range(self.vectors):
            vectors = [k.load(sums, p * self.filters + v * self.lanes, self.lanes) for p in range(self.positions)]
            if residual is None:
                parameters = self.epilogue.parameter(k, at.panel * self.filters + v * self.lanes, self.lanes)
                vectors = [k.let(self.epilogue.apply(k, vector, None, self.lanes, parameters)) for vector in vectors]
            for members, runs in pieces(1, self.positions):
                columns = [vectors[member] for member in members]
                split = (
                    split_lanes(k, columns, self.lanes)
                    if len(members) == QUARTER
                    else [k.part(columns[0], lane, 1) for lane in range(self.lanes)]
                )
                for (_, first, width, _), (lane, value) in ((run, each) for run in runs for each in enumerate(split)):
                    filter = v * self.lanes + lane
                    if residual is not None:
                        addend = k.load(residual, filter * k["r_plane"] + first, width)
                        parameter = self.epilogue.parameter(k, at.panel * self.filters + filter)
                        value = self.epilogue.apply(k, value, addend, width, parameter)
                    k.store(y, filter * k["y_plane"] + first, value, width)

    def _store_some(
        self, k: "KernelBuilder", sums: "Buffer", at: Tile, y: "Buffer", residual: "Buffer | None", filters: "Expr"
    ) -> None:
        """The first ``filters`` filters of a tile that has more."""
        held = k.local(self.positions * self.filters)
        for index in range(0, self.positions * self.filters, self.lanes):
            k.store(held, index, k.load(sums, index, self.lanes), self.lanes)
        with k.loop(0, filters) as filter, k.loop(0, self.positions) as p:
            addend = None if residual is None else k.load(residual, filter * k["r_plane"] + p)
            parameter = self.epilogue.parameter(k, at.panel * self.filters + filter)
            value = self.epilogue.apply(k, k.load(held, p * self.filters + filter), addend, 1, parameter)
            k.store(y, filter * k["y_plane"] + p, value)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        pitch, width, across = (int(args[name]) for name in ("pitch", "width", "across"))
        for image, group, filters, tiles in items_reference(args, begin, end, self.filters):
            tile = np.array(tiles)
            first = np.minimum(tile % across * self.positions, width - self.positions)
            column = (first[:, None] + np.arange(self.positions)).ravel()
            row = np.repeat(tile // across, self.positions)
            conv_reference(
                args, self.epilogue, self.filters, (image, group, filters), row * pitch + column, row, column
            )
