"""Dense convolution with filters in the lanes of vectors: a tile is some vectors of filters times a run of positions of one output row.

Weights are loaded as vectors, inputs are spread over one (on NEON a vector of inputs is multiplied by lane), so a run may be of any length and begin
anywhere: planes of 7x7 or 14x14 leave no part of a vector empty, and a stride of columns is a distance between the inputs. Finished tiles are transposed
on their way to memory. Good for small planes, strides and many filters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.dense_work import WORK_PARAMS, Tile, conv_reference, items_reference, pointer_params, stride_params, tiles_of_work
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.interleaved_tile import pieces
from pcc.codegen.kernels.transpose import QUARTER, split_lanes
from pcc.dtype import FLOAT32

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class ConvFilters:
    """Tiles of ``vectors`` vectors of ``lanes`` filters times ``positions`` neighbouring outputs of a row, whose inputs are ``step`` elements apart.

    The last tile of a row begins early and computes some outputs again; all tiles of such a row are in one item.
    """

    positions: int
    vectors: int
    lanes: int
    step: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_conv_filters_{self.filters}x{self.positions}s{self.step}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        rows = (Param("x_row"), Param("width"), Param("across"))
        return *pointer_params(self.epilogue), *stride_params(self.epilogue), *rows, *WORK_PARAMS

    @property
    def filters(self) -> int:
        """Filters of a tile."""
        return self.vectors * self.lanes

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        sums = k.local(self.positions * self.filters)
        with tiles_of_work(k, self.filters, self.epilogue.residual) as at:
            row, across = k.divide(at.tile, k["across"])
            column = k.let(tirx.Min(across * self.positions, k["width"] - self.positions))
            self._multiply(k, sums, at, k.let(at.x + row * k["x_row"] + column * self.step))
            y = k.pointer(k["y"], at.y + row * k["y_row"] + column)
            residual = k.pointer(k["residual"], at.residual + row * k["r_row"] + column) if self.epilogue.residual else None
            left = k.let(k["filters"] - at.block * self.filters)
            with k.when_else(left >= self.filters) as (then, otherwise):
                with then:
                    self._store_whole(k, sums, y, residual)
                with otherwise:
                    self._store_some(k, sums, y, residual, left)

    def _multiply(self, k: "KernelBuilder", sums: "Buffer", at: Tile, source: "Expr") -> None:
        """sums (positions, filters) = bias + sum over depth of weights times inputs."""
        lanes, run = self.lanes, self.filters
        for v in range(0, run, lanes):
            bias = k.let(k.load(k["bias"], at.panel * run + v, lanes))
            for p in range(self.positions):
                k.store(sums, p * run + v, bias, lanes)
        weights = k.pointer(k["w"], at.panel * k["depth"] * run)
        inputs_at = k.pointer(k["x"], source)
        with k.loop(k.wide(0), k.wide(k["depth"])) as depth:
            x = k.pointer(inputs_at, k.load(k["offsets"], depth))
            panel = [k.let(k.load(weights, depth * run + v, lanes)) for v in range(0, run, lanes)]
            for p, value in enumerate(self._inputs(k, x)):
                for v, weight in zip(range(0, run, lanes), panel, strict=True):
                    k.store(sums, p * run + v, k.load(sums, p * run + v, lanes) + weight * value, lanes)

    def _inputs(self, k: "KernelBuilder", x: "Buffer") -> Iterator["Expr"]:
        """The inputs of all positions, each in all lanes, one after the other: few wait in registers."""
        places, lanes = [p * self.step for p in range(self.positions)], self.lanes
        loaded: dict[int, Expr] = {}
        for place in places:
            if not k.isa.multiply_add(FLOAT32).by_lane:
                yield k.let(k.splat(k.load(x, place), lanes))
                continue
            first = place // lanes * lanes
            if first not in loaded:
                loaded[first] = k.let(k.load(x, first, lanes))
            yield k.lane(loaded[first], place - first, lanes)

    def _store_whole(self, k: "KernelBuilder", sums: "Buffer", y: "Buffer", residual: "Buffer | None") -> None:
        """All filters exist: four positions of as many filters as a vector has lanes change places, and go to memory filter by filter."""
        for v in range(self.vectors):
            vectors = [k.load(sums, p * self.filters + v * self.lanes, self.lanes) for p in range(self.positions)]
            if residual is None:
                vectors = [k.let(self.epilogue.apply(k, vector, None, self.lanes)) for vector in vectors]
            for members, runs in pieces(1, self.positions):
                columns = [vectors[member] for member in members]
                split = split_lanes(k, columns, self.lanes) if len(members) == QUARTER else [k.part(columns[0], lane, 1) for lane in range(self.lanes)]
                for (_, first, width, _), (lane, value) in ((run, each) for run in runs for each in enumerate(split)):
                    filter = v * self.lanes + lane
                    if residual is not None:
                        value = self.epilogue.apply(k, value, k.load(residual, filter * k["r_plane"] + first, width), width)
                    k.store(y, filter * k["y_plane"] + first, value, width)

    def _store_some(self, k: "KernelBuilder", sums: "Buffer", y: "Buffer", residual: "Buffer | None", filters: "Expr") -> None:
        """The first ``filters`` filters of a tile that has more."""
        held = k.local(self.positions * self.filters)
        for index in range(0, self.positions * self.filters, self.lanes):
            k.store(held, index, k.load(sums, index, self.lanes), self.lanes)
        with k.loop(0, filters) as filter, k.loop(0, self.positions) as p:
            addend = None if residual is None else k.load(residual, filter * k["r_plane"] + p)
            k.store(y, filter * k["y_plane"] + p, self.epilogue.apply(k, k.load(held, p * self.filters + filter), addend, 1))

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        width, across, x_row = (int(args[name]) for name in ("width", "across", "x_row"))
        for image, group, filters, tiles in items_reference(args, begin, end, self.filters):
            tile = np.array(tiles)
            first = np.minimum(tile % across * self.positions, width - self.positions)
            column = (first[:, None] + np.arange(self.positions)).ravel()
            row = np.repeat(tile // across, self.positions)
            conv_reference(args, self.epilogue, self.filters, (image, group, filters), row * x_row + column * self.step, row, column)
