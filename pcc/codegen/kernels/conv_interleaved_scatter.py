"""Sparse convolution on block-interleaved lines, input-stationary: for small planes, whose tiles are too few for code
of each pattern.

It is `conv_sparse_scatter` on lines (see `interleave`): a block of filters has its accumulators in L1, and each input
is loaded once for all the filters that use it. On lines every tap is an aligned load, and no position is computed that
is not stored but for blocks that overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import sparse_tile
from pcc.codegen.kernels.conv_sparse_scatter import (
    TABLES,
    ScatterSchedule,
    block_arrays,
    reference_block,
    schedule_of,
    sum_block,
    tile_work,
)
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.interleave import Blocks, Layout, interleave, interleaving_work
from pcc.codegen.kernels.tile_store import pieces, store_lines
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.builder import KernelBuilder

MOST_VECTORS = 4
"""Lines of a tile: their taps are in registers together."""


@dataclass(frozen=True)
class InterleavedScatterSchedule:
    """Blocks of the image in the lanes, tiles of ``rows`` x ``columns`` lines, and how filters are divided."""

    blocks: Blocks
    rows: int
    columns: int
    filters: ScatterSchedule

    def __str__(self) -> str:
        return f"{self.blocks}, tiles of {self.filters.block} filters x {self.rows}x{self.columns}"


@dataclass(frozen=True)
class InterleavedScatterFamily:
    """Input-stationary sparse convolution on lines."""

    name: str = "conv-sparse-interleaved-scatter"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        if prod(layer.geometry.window) == 1:
            return "the taps of a 1x1 window share nothing"
        height, width = layer.geometry.output_size(*layer.x.shape[2:])
        weight, lanes, found = sparse_tile.fkw_of(layer), machine.isa.lanes(FLOAT32), []
        shapes = [
            (rows, columns) for rows in range(1, MOST_VECTORS + 1) for columns in range(1, MOST_VECTORS // rows + 1)
        ]
        for across in range(1, lanes + 1):
            for rows, columns in shapes:
                blocks = Blocks(
                    lanes, across, _covering(height, lanes // across, rows), _covering(width, across, columns)
                )
                layout = Layout(blocks, layer.geometry, *layer.x.shape[2:])
                if layout.is_possible:
                    filters = schedule_of(weight.shape[0], rows * columns, machine)
                    schedule = InterleavedScatterSchedule(blocks, rows, columns, filters)
                    found.append(Candidate(schedule, _work(layer, schedule, layout, machine)))
        return found or "no tiling in blocks fits the plane"

    def emit(self, layer: Conv2d, schedule: InterleavedScatterSchedule, b: ProgramBuilder) -> None:
        weight = sparse_tile.fkw_of(layer)
        layout = Layout(schedule.blocks, layer.geometry, *layer.x.shape[2:])
        arrays, taps = block_arrays(weight, schedule.filters, _taps_at(layout), layout.plane)
        arrays |= {
            "channels": weight.reorder,
            **channel_arrays(layer),
            "y_at": layout.output_at(layer.y),
            **({} if layer.residual is None else {"r_at": layout.output_at(layer.residual)}),
        }
        epilogue = Epilogue(layer.residual is not None, layer.activation)
        kernel = InterleavedScatter(
            schedule.rows,
            schedule.columns,
            taps,
            layer.geometry.stride,
            layout.pitch,
            layout.blocks.lanes,
            schedule.filters.room,
            epilogue,
        )
        down, across, blocks = (
            schedule.blocks.rows // schedule.rows,
            schedule.blocks.columns // schedule.columns,
            -(-weight.shape[0] // schedule.filters.block),
        )
        numbers = {
            "x_image": layer.x.shape[1] * layout.plane,
            "tiles_down": down,
            "tiles_across": across,
            "blocks": blocks,
        }
        views = b.named_constants(layer.name, arrays)
        args = {"x": interleave(b, layer.x, layout), **views, **numbers, **epilogue_strides(layer.y, layer.residual)}
        outputs = layer.x.shape[0] * prod(layout.size)
        b.call(
            kernel,
            args,
            layer.x.shape[0] * down * across * blocks,
            macs=weight.weight.size * outputs,
            dense_macs=prod(weight.shape) * outputs,
        )


FAMILY = InterleavedScatterFamily()


def _covering(size: int, blocks: int, tile: int) -> int:
    """Rows (columns) of a block, in whole tiles, so that so many blocks cover the plane."""
    return -(-size // (blocks * tile)) * tile


def _taps_at(layout: Layout) -> np.ndarray:
    """int32: where the line of each tap of the window lies."""
    (kh, kw), (dh, dw) = layout.geometry.window, layout.geometry.dilation
    rows, columns = np.arange(kh)[:, None] * dh, np.arange(kw) * dw
    return ((rows * layout.pitch + columns) * layout.blocks.lanes).ravel().astype(np.int32)


def _work(layer: Conv2d, schedule: InterleavedScatterSchedule, layout: Layout, machine: Machine) -> Work:
    weight, vectors = sparse_tile.fkw_of(layer), schedule.rows * schedule.columns
    stores = sum(len(runs) for _, runs in pieces(schedule.rows, schedule.columns)) * layout.blocks.lanes
    tile = tile_work(weight, schedule.filters, vectors, Work(loads=1), machine)
    tile += Work(lines=vectors, stores=stores - 2 * vectors, scalars=stores) * weight.shape[0]
    # Each block of filters passes by all channels again.
    tile += Work(far=layer.x.shape[1] * layout.rows * layout.pitch * -(-weight.shape[0] // schedule.filters.block))
    tiles = layer.x.shape[0] * schedule.blocks.rows // schedule.rows * schedule.blocks.columns // schedule.columns
    return tile * tiles + interleaving_work(layer.x, layout, machine) + machine.beyond(layer.y, layer.residual)


@dataclass(frozen=True)
class InterleavedScatter:
    """An item is one tile of one block of at most ``filters`` filters, of one image."""

    rows: int
    columns: int
    taps: int
    stride: tuple[int, int]
    pitch: int
    """Lines of a row."""
    lanes: int
    filters: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        shape = f"{self.rows}x{self.columns}x{self.lanes}_p{self.pitch}s{self.stride[0]}x{self.stride[1]}"
        return f"pcc_conv_interleaved_scatter_{shape}_e{self.taps}f{self.filters}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        pointers = [Param("x", "f32*"), Param("taps", "i32*"), Param("weight", "f32*"), *TABLES]
        pointers += [
            Param("channels", "i32*"),
            *self.epilogue.params,
            Param("y_at", "i32*"),
            Param("y", "f32*", writes=True),
        ]
        numbers = ["x_image", "tiles_down", "tiles_across", "blocks", "y_image", "y_plane", "y_row"]
        if self.epilogue.residual:
            pointers += [Param("residual", "f32*"), Param("r_at", "i32*")]
            numbers += ["r_image", "r_plane", "r_row"]
        return (*pointers, *(Param(name) for name in numbers))

    @property
    def _offsets(self) -> list[int]:
        """Where the input lines of the tile's first tap lie."""
        down, right = self.stride
        return [(r * down * self.pitch + q * right) * self.lanes for r in range(self.rows) for q in range(self.columns)]

    def body(self, k: "KernelBuilder") -> None:
        vectors = self.rows * self.columns
        sums, origin = sparse_tile.aligned_local(k, self.filters * vectors * k.lanes)
        with k.work() as item:
            rest, across = k.divide(item, k["tiles_across"])
            rest, down = k.divide(rest, k["tiles_down"])
            image, block = k.divide(rest, k["blocks"])
            row, column = k.let(down * self.rows), k.let(across * self.columns)
            x_at = k.let(
                image * k["x_image"] + (row * (self.stride[0] * self.pitch) + column * self.stride[1]) * k.lanes
            )
            first, end = sum_block(k, block, x_at, self._offsets, self.taps, sums, origin)
            with k.loop(0, end - first) as slot:
                channel, at = k.let(k.load(k["channels"], first + slot)), k.let(origin + slot * (vectors * k.lanes))
                y_at = k.let(image * k["y_image"] + channel * k["y_plane"] + row * k["y_row"] + column)
                r_at = (
                    k.let(image * k["r_image"] + channel * k["r_plane"] + row * k["r_row"] + column)
                    if self.epilogue.residual
                    else 0
                )
                lines = [k.load(sums, at + i * k.lanes, k.lanes) for i in range(vectors)]
                parameter = self.epilogue.parameter(k, channel)
                if not self.epilogue.residual:
                    lines = [k.let(self.epilogue.apply(k, line, None, k.lanes, parameter)) for line in lines]
                store_lines(k, lines, (self.rows, self.columns), self.epilogue, parameter, y_at, r_at)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y, y_at = (np.asarray(args[name]) for name in ("x", "y", "y_at"))
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        r, q = np.arange(self.rows)[:, None, None], np.arange(self.columns)[:, None]
        places = np.add.outer(self._offsets, np.arange(self.lanes)).ravel()
        for item in range(begin, end):
            rest, across = divmod(item, n["tiles_across"])
            rest, down = divmod(rest, n["tiles_down"])
            image, block = divmod(rest, n["blocks"])
            row, column = down * self.rows, across * self.columns
            x_at = n["x_image"] * image + (row * self.stride[0] * self.pitch + column * self.stride[1]) * self.lanes
            for channel, values in reference_block(args, block, x[x_at:], places, self.taps):

                def at(
                    name: str,
                    lane_at: np.ndarray,
                    image: int = image,
                    channel: int = channel,
                    row: int = row,
                    column: int = column,
                ) -> np.ndarray:
                    start = image * n[f"{name}_image"] + channel * n[f"{name}_plane"]
                    return start + (row + r) * n[f"{name}_row"] + column + q + lane_at[: self.lanes]

                residual = (
                    np.asarray(args["residual"])[at("r", np.asarray(args["r_at"]))] if self.epilogue.residual else None
                )
                y[at("y", y_at)] = self.epilogue.reference(
                    values.reshape(self.rows, self.columns, self.lanes),
                    residual,
                    self.epilogue.reference_parameter(args, channel),
                )
