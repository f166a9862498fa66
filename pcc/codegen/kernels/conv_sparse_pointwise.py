"""Sparse 1x1 convolution on flat planes: tiles of some filters and some vectors of positions (`pointwise_tile`).

Every group of filters reads most channels of a tile again. Where they are more than the L1 cache holds, an item goes
through blocks of channels. Lists of channels may have one length (`even_lists`), and the entries of an item lie behind
each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels import sparse_tile
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.even_lists import even_lists
from pcc.codegen.kernels.pointwise_tile import ConvSparsePointwise
from pcc.codegen.kernels.shared_tables import list_lengths, shared_tables
from pcc.codegen.kernels.stage import is_staged, stage, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.listed_weight import ListedWeight
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View, has_whole_lines
from pcc.dtype import FLOAT32, INT32, REALS, DType

TILES: dict[int, tuple[tuple[int, int], ...]] = {
    64: ((1, 13), (1, 20), (2, 7), (2, 13), (3, 7), (4, 5)),
    32: ((1, 13), (2, 4), (2, 6)),
    16: ((1, 13), (1, 16), (2, 13), (4, 7)),
}
"""(filters, vectors) of the tiles for each size of vectors, in bytes."""

MOST_MORE = 1.3
"""How many times the multiply-adds even lists may take: where groups differ much, all their lists would become one."""

L1_SHARE = 2 / 3
"""What inputs may take of the L1 cache: entries go through it, and sums wait there."""

FAR = 4
"""What a vector from the L2 cache counts: most are for one or two multiply-adds, which do not hide it."""


@dataclass(frozen=True)
class PointwiseSchedule:
    """Tiles of ``filters`` filters times ``vectors`` vectors, and one position more where they have a ``last``; an item
    takes ``block`` such groups of filters, on ``channels`` input channels at a time. ``even``: lists have one length
    (`pcc.codegen.kernels.even_lists`)."""

    filters: int
    vectors: int
    block: int
    channels: int
    prefetch: bool
    last: bool = False
    even: bool = False

    def __str__(self) -> str:
        return (
            f"tiles of {self.filters} filters x {self.vectors} vectors{' and a position' if self.last else ''}, "
            f"{self.channels} channels at a time{', even lists' if self.even else ''}"
            f"{', prefetch' if self.prefetch else ''}"
        )

    def variants(self) -> Iterator["PointwiseSchedule"]:
        """Without asking ahead, or with it; lists of any length, or of one; smaller items, and other blocks of
        channels."""
        yield replace(self, prefetch=not self.prefetch)
        if self.filters > 1:
            yield replace(self, even=not self.even)
        yield from (replace(self, block=self.block // parts) for parts in (2, 4) if self.block >= parts)
        yield from (replace(self, channels=-(-self.channels // parts)) for parts in (2, 4) if self.channels >= parts)


@dataclass(frozen=True)
class PointwiseFamily:
    """Output-stationary sparse 1x1 convolution on flat planes."""

    name: str = "conv-sparse-pointwise"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        fkw, lanes = sparse_tile.fkw_of(layer), machine.isa.lanes(layer.x.dtype)
        if prod(layer.geometry.window) > 1 or any(layer.geometry.padding):
            return "the window is not a single position without padding"
        if not _is_flat(layer):
            return "planes are not flat: their rows are longer than what they hold"
        inputs, positions = layer.x.shape[1], prod(layer.y.shape[2:])
        vectors = -(-positions // lanes)
        prefetch = machine.costs.far > 0
        staging, found = (
            staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual, asked=prefetch),
            [],
        )
        tiles_of = {
            (filters, min(width, vectors), False)
            for filters, width in TILES[machine.isa.vector_bytes]
            if filters <= fkw.shape[0]
        }
        if positions % lanes == 1 and positions > 1:
            tiles_of |= {
                (filters, vectors - 1, True) for filters, width, _ in tiles_of if filters > 1 and width >= vectors - 1
            }
        for filters, width, last in sorted(tiles_of):
            groups = -(-fkw.shape[0] // filters)
            tiles = layer.x.shape[0] * (1 if last else -(-vectors // width))
            for channels in sorted({_channels_at_a_time(inputs, width + last, machine), inputs}):
                if channels == inputs:
                    block = sparse_tile.groups_of_item(groups, fkw.weight.size * width / groups, tiles)
                else:  # blocks of channels serve as many groups as they can
                    block = sparse_tile.largest_blocks(groups, tiles)
                schedule = PointwiseSchedule(filters, width, block, channels, prefetch, last)
                lengths = list_lengths(fkw, filters, channels)
                work = _tile_work(layer, lengths, schedule, machine)
                found.append(Candidate(schedule, work * tiles + staging))
                if fkw.share % filters and machine.costs.unforeseen:
                    schedule = replace(schedule, even=True)
                    evened = _tile_work(layer, even_lists(lengths).counts, schedule, machine)
                    if evened.fma <= MOST_MORE * work.fma:
                        found.append(Candidate(schedule, evened * tiles + staging))
        return found

    def emit(self, layer: Conv2d, schedule: PointwiseSchedule, b: ProgramBuilder) -> None:
        fkw, lanes = sparse_tile.fkw_of(layer), b.isa.lanes(layer.x.dtype)
        staged = stage(b, layer.x, layer.geometry)
        tables = shared_tables(
            fkw, schedule.filters, schedule.channels, staged.plane, layer.x.dtype, schedule.even, schedule.block
        )
        size, positions = schedule.vectors * lanes, -(-staged.positions // lanes) * lanes
        tiles, blocks = 1 if schedule.last else -(-positions // size), -(-tables.groups // schedule.block)
        stays = staged.image * layer.x.dtype.bytes <= sparse_tile.L2_BYTES
        tile_step, block_step = (1, tiles) if stays else (blocks, 1)
        arrays = {
            "entries": tables.entries,
            "lists": tables.lists,
            "filters": tables.filters,
            **channel_arrays(layer),
        }
        views = b.named_constants(layer.name, arrays)
        if layer.x.dtype == FLOAT32:
            entries, lists = views["entries"].buffer, views["lists"].buffer
            b.listed.setdefault(entries, ListedWeight(fkw, entries, lists, schedule.filters, staged.plane))
        args: dict[str, View | int | float] = {
            "x": staged.view,
            "x_image": staged.image,
            **views,
            "groups": tables.groups,
            "groups_per_item": schedule.block,
            "tiles": tiles,
            "tile_step": tile_step,
            "blocks": blocks,
            "block_step": block_step,
            "positions": positions,
            "stored": positions if has_whole_lines(layer.y) else staged.positions,
            "y": layer.y,
            **dict(zip(("y_image", "y_plane"), layer.y.strides, strict=False)),
        }
        if layer.residual is not None:
            args |= {
                "residual": layer.residual,
                **dict(zip(("r_image", "r_plane"), layer.residual.strides, strict=False)),
            }
        outputs = layer.y.shape[0] * staged.positions
        in_blocks = schedule.channels < layer.x.shape[1]
        if in_blocks:
            waiting = schedule.filters * size + (lanes if schedule.last else 0)
            args["partial"] = b.thread_tensor(f"{layer.name}.partial", (schedule.block, waiting), layer.x.dtype)
            args["channel_blocks"] = len(tables.lists) // tables.groups
        if schedule.prefetch and not in_blocks:
            args |= {
                "x_plane": staged.plane,
                "channels": schedule.channels,
                "channels_ahead": 0 if stays else -(-schedule.channels // tables.groups),
            }
        kernel = ConvSparsePointwise(
            schedule.filters,
            size,
            Epilogue(layer.residual is not None, layer.activation),
            in_blocks,
            schedule.prefetch,
            layer.x.dtype,
            schedule.last,
            tables.shared,
        )
        macs, dense_macs = fkw.weight.size * outputs, prod(fkw.shape) * outputs
        b.call(
            kernel, args, layer.y.shape[0] * tiles * blocks, macs=macs, dense_macs=dense_macs, arithmetic=layer.x.dtype
        )


FAMILY = PointwiseFamily()


def _is_flat(layer: Conv2d) -> bool:
    """Whether every plane is one run of positions."""
    views = [view for view in (layer.x, layer.y, layer.residual) if view is not None]
    return all(
        view.strides[2] == view.shape[3] or view.shape[2] == 1
        for view in (views[1:] if is_staged(layer.geometry) else views)
    )


def _channels_at_a_time(channels: int, width: int, machine: Machine) -> int:
    """Of how many the inputs of a tile fill their share of the L1 cache, so that all blocks have about as many."""
    blocks = ceil(channels * width * machine.isa.vector_bytes / (L1_SHARE * machine.l1_bytes))
    return -(-channels // blocks)


def _tile_work(layer: Conv2d, lengths: np.ndarray, schedule: PointwiseSchedule, machine: Machine) -> Work:
    """One tile of all filters of one image, from what `list_lengths` gives."""
    width, groups, inputs = schedule.vectors, -(-layer.y.shape[1] // schedule.filters), layer.x.shape[1]
    lines = width + schedule.last
    blocks = len(lengths) // groups
    users = np.array([members.bit_count() for members in range(lengths.shape[1])])  # of an entry of each set
    of_set = lengths.sum(axis=0)
    entries, weights = int(of_set.sum()), float(of_set @ users)
    swept = schedule.channels * lines * machine.isa.vector_bytes  # by each group again: all of it is lost soon
    left = min(1.0, max(0.0, swept / (L1_SHARE * machine.l1_bytes) - 1))
    far = FAR * lines * (entries * left + inputs * -(-groups // schedule.block) * (1 - left))
    multiplies = float(of_set @ np.maximum(users * width + schedule.last, machine.fma_in_flight))
    spread = weights / (machine.isa.lanes(layer.x.dtype) if machine.isa.multiply_add(layer.x.dtype).by_lane else 1)
    listed = (Work(scalars=1, branches=1) + tap_loads(layer.x, layer.geometry, width)) * entries + Work(
        fma=multiplies, scalars=spread, far=far
    )
    if schedule.last:  # beside the multiply-adds of all filters they take no time
        listed += Work(loads=1, scalars=1) * int(entries - of_set[-1])
    sets = 1 if entries == of_set[-1] else 2**schedule.filters - 1
    lists = Work(scalars=1, lists=1, fma=2 * schedule.last) * (sets * blocks - 1)
    lists += Work(unforeseen=(1 if schedule.even else sets) * blocks)
    stored = Work(stores=lines, scalars=2 + (lines if schedule.prefetch else 0)) * schedule.filters
    # The sums of all groups of an item wait in the L1 cache, or do not fit there.
    waiting = schedule.filters * width * (blocks - 1)
    from_far = (
        2 * waiting if schedule.block * schedule.filters * width * machine.isa.vector_bytes > machine.l1_bytes else 0
    )
    sums = stored + Work(updates=waiting, loads=from_far, far=from_far)
    read = machine.foreseen(entries * INT32.bytes + weights * layer.x.dtype.bytes)
    return machine.loop(listed) + (lists + sums) * groups + read
