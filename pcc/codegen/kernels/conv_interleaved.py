"""Convolution on block-interleaved lines: the form for windows whose taps share lines, sparse or dense, with the max
pool after it or without.

A dense weight is one pattern of all taps: each line is read once for as many multiply-adds as the window has taps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, prod

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels import sparse_tile
from pcc.codegen.kernels.dense_work import epilogue_strides
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.interleave import Blocks, Layout, interleave, interleaving_work, line_extent, row_copy
from pcc.codegen.kernels.interleaved_schedule import FEW_TAPS, InterleavedSchedule, schedules, tile_bytes, window_of
from pcc.codegen.kernels.interleaved_tile import InterleavedTile, Pattern, users_of_lines
from pcc.codegen.kernels.sparse_tables import gather_tables
from pcc.codegen.kernels.tile_store import pieces
from pcc.codegen.layers import Conv2d, ConvGeometry, PooledConv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View
from pcc.dtype import FLOAT32, REALS, DType
from pcc.sparsity import fkw
from pcc.sparsity.fkw import FKW, places
from pcc.sparsity.formats import DENSE

MOST_COPIED_AGAIN = 0.25
"""How much of a layer's time strips may take that several threads copy, each for its items."""

ON_THE_STACK = 1.6
"""Lines that each tap of a strided window sends to the stack and back, where that many taps have their weights in
registers: counted in arm64 code of 5x5 and 7x7 windows. No two loads become one instruction there, either."""

LEAST_GROUPS = 4
"""Filter groups of an item, so that a tile's lines are used while they are near."""

SHORT_LISTS = 3
"""Where channels go by in blocks, a filter has few connections of each pattern in a block, in any number: their ends
are foreseen so many times less often than those of long lists. (Zen 3, 3x3: 11 cycles for each pattern of a block.)"""


@dataclass(frozen=True)
class InterleavedFamily:
    """Output-stationary convolution with code for each pattern."""

    name: str
    layer: type[Conv2d]
    format: WeightFormat
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        if self.format == DENSE and layer.weight.shape[1] == 1:
            return "a filter that reads one channel makes too little of a copy of it"
        if prod(layer.geometry.window) == 1:
            return "the taps of a 1x1 window share nothing"
        if window_of(layer) != (1, 1) and layer.residual is not None:
            return "a residual is added to rows in memory, not to what a tile pools"
        if any(
            size % step
            for size, step in zip(layer.geometry.output_size(*layer.x.shape[2:]), window_of(layer), strict=True)
        ):
            return "the windows of the pool do not divide the plane"
        weight = self._packed(layer)
        found, counts = [], _connections_of_patterns(weight)

        @cache  # many schedules have the same blocks
        def copied(blocks: Blocks) -> tuple[Layout, Work] | None:
            layout = Layout(blocks, layer.geometry, *layer.x.shape[2:])
            return (layout, interleaving_work(layer.x, layout, machine)) if layout.is_possible else None

        for schedule in schedules(layer, weight, machine):
            if possible := copied(schedule.blocks):
                found += _priced(layer, weight, counts, schedule, *possible, machine)
        return found or "no tiling in blocks fits the plane and the registers"

    def _packed(self, layer: Conv2d) -> FKW:
        """The weight with its patterns. A dense one has one pattern of all taps, and every connection: its zeros are
        stored, too."""
        if self.format != DENSE:
            return sparse_tile.fkw_of(layer)
        assert isinstance(layer.weight, np.ndarray)
        every = fkw.pack(np.ones_like(layer.weight), layer.groups)
        return replace(every, weight=np.ascontiguousarray(layer.weight).reshape(every.weight.shape))

    def emit(self, layer: Conv2d, schedule: InterleavedSchedule, b: ProgramBuilder) -> None:
        weight = self._packed(layer)
        layout = Layout(schedule.blocks, layer.geometry, *layer.x.shape[2:])
        highest = line_extent(max(rows for rows, _ in schedule.heights), layer.geometry, 0)
        strip = layout.elements(layout.apart(highest))
        plane = strip if schedule.in_strips else layout.plane
        views = _tables(layer, weight, layout, plane, schedule.channels, b)
        copy = None
        if schedule.in_strips:
            copy, arguments = row_copy(b, layer.x, layout)
            lines = b.thread_tensor(f"{layer.name}.strip", (layer.x.shape[1], strip), layer.x.dtype)
            arguments |= {"x": lines, "image": layer.x, "x_image": layer.x.strides[0], "x_plane": layer.x.strides[1]}
            arguments |= {"x_channels": layer.x.shape[1], "strip_plane": strip}
        else:
            arguments = {"x": interleave(b, layer.x, layout), "x_image": layer.x.shape[1] * layout.plane}
        patterns, epilogue = _patterns(weight, layer.geometry), Epilogue(layer.residual is not None, layer.activation)
        groups, across = weight.shape[0] // weight.share, schedule.blocks.columns // schedule.columns
        first, outputs = 0, layer.x.shape[0] * prod(layout.size)
        for rows, count in schedule.heights:
            strips = layer.x.shape[0] * count
            chunks = _chunks(strips, groups, rows * count / schedule.blocks.rows)
            kernel = InterleavedTile(
                rows,
                schedule.columns,
                weight.share,
                patterns,
                layer.geometry.stride,
                layout.pitch,
                b.isa.lanes(layer.x.dtype),
                epilogue,
                schedule.prefetch,
                copy,
                window_of(layer),
                schedule.channels is not None,
            )
            groups_per_item = -(-groups // chunks)
            if schedule.channels:
                sums = (groups_per_item * weight.share, rows * schedule.columns * b.isa.lanes(layer.x.dtype))
                partial = b.thread_tensor(f"{layer.name}.partial{first}", sums, layer.x.dtype)
                arguments |= {"partial": partial, "blocks": -(-layer.x.shape[1] // schedule.channels)}
            numbers = {
                "groups": groups,
                "groups_per_item": groups_per_item,
                "chunks": chunks,
                "tiles_down": count,
                "tiles_across": across,
                "first_row": first,
                **({"strip_rows": line_extent(rows, layer.geometry, 0)} if copy else {}),
            }
            part = outputs * rows * count / schedule.blocks.rows
            args = {**arguments, **views, **numbers, **epilogue_strides(layer.y, layer.residual)}
            b.call(
                kernel,
                args,
                strips * chunks,
                macs=round(weight.weight.size * part),
                dense_macs=round(prod(weight.shape) * part),
                arithmetic=layer.x.dtype,
            )
            first += rows * count


SPARSE_FAMILY = InterleavedFamily("conv-sparse-interleaved", Conv2d, "fkw")
SPARSE_POOLED_FAMILY = InterleavedFamily("conv-sparse-interleaved-pool", PooledConv2d, "fkw")
DENSE_FAMILY = InterleavedFamily("conv-dense-interleaved", Conv2d, DENSE)
DENSE_POOLED_FAMILY = InterleavedFamily("conv-dense-interleaved-pool", PooledConv2d, DENSE)


def _tables(
    layer: Conv2d, weight: FKW, layout: Layout, channel: int, block: int | None, b: ProgramBuilder
) -> dict[str, View]:
    """The tables of the kernel; ``channel`` is how far apart the lines of two channels are, ``block`` how many are
    read at a time."""
    tables = gather_tables(weight, weight.patterns.shape[1], block)
    arrays = {
        "weight": tables.weight,
        "channels_at": tables.channels * np.int32(channel),
        "segments": tables.segments,
        "channels": weight.reorder,
        **channel_arrays(layer),
        "y_at": layout.output_at(layer.y, window_of(layer)),
        **({} if layer.residual is None else {"r_at": layout.output_at(layer.residual)}),
    }
    return b.named_constants(layer.name, arrays)


def _patterns(weight: FKW, geometry: ConvGeometry) -> tuple[Pattern, ...]:
    """The patterns as lines from that of the first tap."""
    (_, kw), (dh, dw) = geometry.window, geometry.dilation
    return tuple(tuple((tap // kw * dh, tap % kw * dw) for tap in pattern) for pattern in weight.patterns.tolist())


def _connections_of_patterns(weight: FKW) -> tuple[int, ...]:
    """How many connections, of all filter groups, have each pattern."""
    return tuple(np.bincount(places(weight)[1], minlength=len(weight.patterns)).tolist())


def _chunks(strips: int, groups: int, share: float) -> int:
    """Into how many items the filter groups of a strip are divided, so that a call of so many strips, a share of the
    layer, has enough of them."""
    return max(1, min(groups // LEAST_GROUPS, ceil(sparse_tile.FEWEST_ITEMS * share / strips)))


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


def _priced(
    layer: Conv2d,
    weight: FKW,
    counts: tuple[int, ...],
    schedule: InterleavedSchedule,
    layout: Layout,
    copied: Work,
    machine: Machine,
) -> Iterator[Candidate]:
    """The schedule with its input copied whole, which takes ``copied``, and, where threads would not copy much again,
    by strips; ``counts`` are connections of each pattern."""
    tiles = machine.beyond(layer.y, layer.residual)
    by_strips, again = machine.beyond(layer.x), Work()
    for rows, count in schedule.heights:
        strips = layer.x.shape[0] * count
        tiles += _strip_work(layer, weight, counts, schedule, layout, rows, machine) * strips
        lines = layer.x.shape[1] * line_extent(rows, layer.geometry, 0) * layout.pitch
        copy = Work(lines=lines, stores=lines)
        by_strips += copy * strips
        again += copy * (
            strips * (_chunks(strips, weight.shape[0] // weight.share, rows * count / schedule.blocks.rows) - 1)
        )
    yield Candidate(schedule, tiles + copied)
    if machine.cycles(again) <= MOST_COPIED_AGAIN * machine.cycles(tiles):
        yield Candidate(replace(schedule, in_strips=True), tiles + by_strips)


def _strip_work(
    layer: Conv2d,
    weight: FKW,
    counts: tuple[int, ...],
    schedule: InterleavedSchedule,
    layout: Layout,
    rows: int,
    machine: Machine,
) -> Work:
    """What the tiles of a strip execute."""
    lanes, taps, groups = machine.isa.lanes(layer.x.dtype), weight.patterns.shape[1], weight.shape[0] // weight.share
    patterns = _patterns(weight, layer.geometry)
    weights = taps * weight.share / (lanes if machine.isa.multiply_add(layer.x.dtype).by_lane else 1)
    sums = rows * schedule.columns * weight.share
    # A filter reads from all channels of its tile, and the next one again; tiles side by side take turns.
    row_bytes = weight.shape[1] * line_extent(rows, layer.geometry, 0) * machine.isa.vector_bytes
    lines_bytes = weight.shape[1] * tile_bytes(layer, rows, schedule.columns, machine)
    strip_is_far = row_bytes * layout.pitch > machine.l2_bytes // 2
    distance = 0 if schedule.channels else (lines_bytes > machine.l1_bytes) + strip_is_far
    down, right = window_of(layer)
    stores = sum(len(runs) for _, runs in pieces(rows // down, schedule.columns // right)) * lanes * weight.share
    tile = (
        Work(
            lines=sums // (down * right),
            stores=stores,
            scalars=stores + 2 * len(patterns),
            branches=1 + 2 * len(patterns),
        )
        * groups
    )
    strains = taps > FEW_TAPS and layer.geometry.stride != (1, 1) and machine.isa.multiply_add(layer.x.dtype).by_lane
    reach, loads, lines = 0 if strains else machine.load_pair_reach // machine.isa.vector_bytes, 0, 0
    for pattern, connections in zip(patterns, counts, strict=True):
        distinct = _distinct_lines(pattern, rows, schedule.columns, layer.geometry.stride)
        loads, lines = loads + _loads(distinct, layout.pitch, reach) * connections, lines + len(distinct) * connections
    multiplies, connections = taps * max(sums, machine.fma_in_flight), sum(counts)
    if strains:
        tile += Work(loads=ON_THE_STACK, stores=ON_THE_STACK) * (taps * connections)
    if schedule.channels:
        blocks = -(-weight.shape[1] // schedule.channels)
        weight_bytes = (weight.weight.size + connections) * FLOAT32.bytes
        once = lines_bytes * (1 + strip_is_far) + weight_bytes
        tile += Work(far=once / machine.isa.vector_bytes) + machine.foreseen(weight_bytes)
        again = Work(loads=sums, stores=sums, branches=2 * len(patterns), unforeseen=SHORT_LISTS * len(patterns))
        tile += again * ((blocks - 1) * groups)
    tile += machine.loop(
        Work(loads=loads, scattered=distance * lines)
        + Work(fma=multiplies, scalars=weights + 1, branches=1) * connections
    )
    return tile * (schedule.blocks.columns // schedule.columns)
