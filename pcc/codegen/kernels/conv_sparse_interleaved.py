"""Sparse convolution on block-interleaved lines: the form for windows whose taps share lines."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels import sparse_tile
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.interleave import Blocks, Layout, interleave, interleaving_work, line_extent, row_copy
from pcc.codegen.kernels.interleaved_tile import InterleavedTile, Pattern, runs_of, users_of_lines
from pcc.codegen.kernels.sparse_tables import gather_tables
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32, DType
from pcc.sparsity.fkw import FKW, places

MOST_MULTIPLIES = 1100
"""Vector multiply-adds in the code of a kernel: each takes 3 ms to compile."""

MOST_COPIED_AGAIN = 0.25
"""How much of a layer's time strips may take that several threads copy, each for its items."""

LEAST_GROUPS = 4
"""Filter groups of an item, so that a tile's lines are used while they are near."""


@dataclass(frozen=True)
class InterleavedSchedule:
    """How a layer is cut: blocks in the lanes, tiles of ``columns`` and of these numbers of rows, one strip after the other."""

    blocks: Blocks
    columns: int
    heights: tuple[tuple[int, int], ...]
    """(rows of a tile, how many tiles below each other)."""
    in_strips: bool = False
    """Whether the input is copied to lines a strip at a time, by the kernel that reads them; else whole, before."""
    prefetch: bool = False
    """Whether the cache lines of outputs are asked for ahead."""

    def __str__(self) -> str:
        tiles = f"{self.blocks}, tiles of {' and '.join(f'{rows}x{self.columns}' for rows, _ in self.heights)}"
        return tiles + (", input by strips" if self.in_strips else "") + (", prefetch" if self.prefetch else "")


@dataclass(frozen=True)
class InterleavedFamily:
    """Output-stationary sparse convolution with code for each pattern."""

    name: str = "conv-sparse-interleaved"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        fkw = sparse_tile.fkw_of(layer)
        if prod(layer.geometry.kernel) == 1:
            return "the taps of a 1x1 window share nothing"
        found, counts = [], _kernels_of_patterns(fkw)
        for schedule in _schedules(layer, fkw, machine):
            layout = Layout(schedule.blocks, layer.geometry, *layer.x.shape[2:])
            if layout.is_possible:
                found += _priced(layer, fkw, counts, schedule, layout, machine)
        return found or "no tiling in blocks fits the plane and the registers"

    def emit(self, layer: Conv2d, schedule: InterleavedSchedule, b: ProgramBuilder) -> None:
        fkw = sparse_tile.fkw_of(layer)
        layout = Layout(schedule.blocks, layer.geometry, *layer.x.shape[2:])
        highest = line_extent(max(rows for rows, _ in schedule.heights), layer.geometry, 0) * layout.pitch * b.isa.lanes(FLOAT32)
        views = _tables(layer, fkw, layout, highest if schedule.in_strips else layout.plane, b)
        copy = None
        if schedule.in_strips:
            copy, arguments = row_copy(b, layer.x, layout)
            lines = b.thread_tensor(f"{layer.name}.strip", (layer.x.shape[1], highest))
            arguments |= {"x": lines, "image": layer.x, "x_image": layer.x.strides[0], "x_plane": layer.x.strides[1]}
            arguments |= {"x_channels": layer.x.shape[1], "strip_plane": highest}
        else:
            arguments = {"x": interleave(b, layer.x, layout), "x_image": layer.x.shape[1] * layout.plane}
        patterns, epilogue = _patterns(fkw, layer.geometry), Epilogue(layer.residual is not None, layer.activation)
        groups, across = fkw.shape[0] // fkw.group, schedule.blocks.columns // schedule.columns
        first, outputs = 0, layer.y.shape[0] * layer.y.shape[2] * layer.y.shape[3]
        for rows, count in schedule.heights:
            strips = layer.x.shape[0] * count
            chunks = _chunks(strips, groups)
            kernel = InterleavedTile(
                rows, schedule.columns, fkw.group, patterns, layer.geometry.stride, layout.pitch, b.isa.lanes(FLOAT32), epilogue, schedule.prefetch, copy
            )
            numbers = {
                "groups": groups,
                "groups_per_item": -(-groups // chunks),
                "chunks": chunks,
                "tiles_down": count,
                "tiles_across": across,
                "first_row": first,
                **({"strip_rows": line_extent(rows, layer.geometry, 0)} if copy else {}),
            }
            part = outputs * rows * count / schedule.blocks.rows
            args = {**arguments, **views, **numbers, **epilogue_strides(layer.y, layer.residual)}
            b.call(kernel, args, strips * chunks, macs=round(fkw.weight.size * part), dense_macs=round(prod(fkw.shape) * part))
            first += rows * count


FAMILY = InterleavedFamily()


def _tables(layer: Conv2d, fkw: FKW, layout: Layout, channel: int, b: ProgramBuilder) -> dict[str, View]:
    """The tables of the kernel; ``channel`` is how far apart the lines of two channels are."""
    tables = gather_tables(fkw, fkw.patterns.shape[1])
    arrays = {
        "weight": tables.weight,
        "channels_at": tables.channels * np.int32(channel),
        "segments": tables.segments,
        "channels": fkw.reorder,
        "bias": np.zeros(fkw.shape[0], np.float32) if layer.bias is None else layer.bias,
        "y_at": layout.output_at(layer.y),
        **({} if layer.residual is None else {"r_at": layout.output_at(layer.residual)}),
    }
    return {name: b.constant(f"{layer.name}.{name}", values) for name, values in arrays.items()}


def _patterns(fkw: FKW, geometry: ConvGeometry) -> tuple[Pattern, ...]:
    """The patterns as lines from that of the first tap."""
    (_, kw), (dh, dw) = geometry.kernel, geometry.dilation
    return tuple(tuple((tap // kw * dh, tap % kw * dw) for tap in pattern) for pattern in fkw.patterns.tolist())


def _kernels_of_patterns(fkw: FKW) -> tuple[int, ...]:
    """How many kernels, of all filter groups, have each pattern."""
    return tuple(np.bincount(places(fkw)[1], minlength=len(fkw.patterns)).tolist())


def _schedules(layer: Conv2d, fkw: FKW, machine: Machine) -> Iterator[InterleavedSchedule]:
    """Every cut of the plane into blocks, with every tile that the registers hold."""
    height, width = layer.geometry.output_size(*layer.x.shape[2:])
    lanes, taps = machine.isa.lanes(FLOAT32), fkw.patterns.shape[1]
    weights = -(-taps * fkw.group // lanes) if machine.isa.multiply_add(FLOAT32).by_lane else taps * fkw.group
    sums = min(machine.isa.registers - weights - machine.loads_ahead - 2, MOST_MULTIPLIES // (taps * len(fkw.patterns))) // fkw.group
    prefetch = layer.y.strides[0] * layer.y.shape[0] * layer.y.dtype.bytes > machine.l2_bytes // 2
    for across in range(1, lanes + 1):
        rows = _divided(height, lanes // across)
        for columns in range(1, min(sums, width) + 1):
            block_columns = _divided(_divided(width, across), columns) * columns
            if rows > height or block_columns > width:
                continue
            for tile_rows in range(1, min(sums // columns, rows) + 1):
                yield InterleavedSchedule(Blocks(lanes, across, rows, block_columns), columns, _heights(rows, tile_rows), prefetch=prefetch)


def _chunks(strips: int, groups: int) -> int:
    """Into how many items the filter groups of a strip are divided, so that a call of so many strips has enough of them."""
    return max(1, min(groups // LEAST_GROUPS, -(-sparse_tile.FEWEST_ITEMS // strips)))


def _divided(size: int, parts: int) -> int:
    """The least size of which so many cover the whole."""
    return -(-size // parts)


def _heights(rows: int, tile_rows: int) -> tuple[tuple[int, int], ...]:
    """``rows`` in tiles of ``tile_rows`` and, for what is left, of one other height."""
    count, left = divmod(rows, tile_rows)
    if not left:
        return ((tile_rows, count),)
    if (tile_rows + left) % 2 == 0:  # two of the mean height instead of a high and a low one
        heights = ((tile_rows, count - 1), ((tile_rows + left) // 2, 2))
        return heights if count > 1 else heights[1:]
    return (tile_rows, count), (left, 1)


@cache
def _distinct_lines(pattern: Pattern, rows: int, columns: int, stride: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(row, column) of each, in order."""
    return tuple(users_of_lines(pattern, rows, columns, stride))


@cache
def _loads(lines: tuple[tuple[int, int], ...], pitch: int, reach: int) -> int:
    """Instructions that load them; ``reach`` is how many lines behind the first a pair may end."""
    places, loads = [row * pitch + column for row, column in lines], 0
    while places:
        place = places.pop()
        if places and places[-1] == place - 1 and place < reach:
            places.pop()
        loads += 1
    return loads


def _priced(layer: Conv2d, fkw: FKW, counts: tuple[int, ...], schedule: InterleavedSchedule, layout: Layout, machine: Machine) -> Iterator[Candidate]:
    """The schedule with its input copied whole, and, where threads would not copy much again, by strips; ``counts`` are kernels of each pattern."""
    tiles = machine.beyond(layer.y, layer.residual)
    by_strips, again = machine.beyond(layer.x), Work()
    for rows, count in schedule.heights:
        strips = layer.x.shape[0] * count
        tiles += _strip_work(layer, fkw, counts, schedule, layout, rows, machine) * strips
        lines = layer.x.shape[1] * line_extent(rows, layer.geometry, 0) * layout.pitch
        copy = Work(lines=lines, stores=lines)
        by_strips += copy * strips
        again += copy * (strips * (_chunks(strips, fkw.shape[0] // fkw.group) - 1))
    yield Candidate(schedule, tiles + interleaving_work(layer.x, layout, machine))
    if machine.cycles(again) <= MOST_COPIED_AGAIN * machine.cycles(tiles):
        yield Candidate(replace(schedule, in_strips=True), tiles + by_strips)


def _strip_work(layer: Conv2d, fkw: FKW, counts: tuple[int, ...], schedule: InterleavedSchedule, layout: Layout, rows: int, machine: Machine) -> Work:
    """What the tiles of a strip execute."""
    lanes, taps, groups = machine.isa.lanes(FLOAT32), fkw.patterns.shape[1], fkw.shape[0] // fkw.group
    patterns = _patterns(fkw, layer.geometry)
    weights = taps * fkw.group / (lanes if machine.isa.multiply_add(FLOAT32).by_lane else 1)
    sums = rows * schedule.columns * fkw.group
    # A filter reads from all channels of its tile, and the next one again; tiles side by side take turns.
    row_bytes = fkw.shape[1] * line_extent(rows, layer.geometry, 0) * machine.isa.vector_bytes
    tile_bytes, strip_bytes = row_bytes * line_extent(schedule.columns, layer.geometry, 1), row_bytes * layout.pitch
    distance = (tile_bytes > machine.l1_bytes) + (strip_bytes > machine.l2_bytes // 2)
    pieces = rows * len(runs_of(schedule.columns)) * lanes * fkw.group
    tile = Work(lines=sums, stores=pieces, scalars=pieces + 2 * len(patterns), branches=1 + 2 * len(patterns)) * groups
    reach, loads, lines = machine.load_pair_reach // machine.isa.vector_bytes, 0, 0
    for pattern, kernels in zip(patterns, counts, strict=True):
        distinct = _distinct_lines(pattern, rows, schedule.columns, layer.geometry.stride)
        loads, lines = loads + _loads(distinct, layout.pitch, reach) * kernels, lines + len(distinct) * kernels
    multiplies, kernels = taps * max(sums, machine.fma_in_flight), sum(counts)
    tile += Work(loads=loads, far=distance * lines) + Work(fma=multiplies, scalars=weights + 1, branches=1) * kernels
    return tile * (schedule.blocks.columns // schedule.columns)
