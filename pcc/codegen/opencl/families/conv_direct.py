"""All connections, window by window: any geometry within a tile's reach, and convolution groups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.families.in_planes import emit_in_planes
from pcc.codegen.opencl.families.tiles import Scratch, TileSchedule, calls_of_tiles, group_work, tile_candidates
from pcc.codegen.opencl.kernels.conv_direct import direct_call, stored_weights
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.codegen.opencl.kernels.weights import PreparedWeight, packed_weight
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.packing import as_taps
from pcc.codegen.range import Sizes
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.sparsity.fkw import FKW
from pcc.sparsity.pattern import every_tap

TILES_OF_FOUR = (Tile(4, 2, 2), Tile(4, 2, 1), Tile(4, 1, 2), Tile(4, 1, 1))


@dataclass(frozen=True)
class DirectDense:
    name: str = "opencl-conv-direct"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32, FLOAT16)
    border: int | None = 0

    def candidates(self, layer: Conv2d, machine: GpuProfile) -> Sequence[Candidate] | str:
        filters, inputs = layer.weight.shape[:2]
        patterns = np.arange(prod(layer.weight.shape[2:]))[None]

        def work(tile: Tile, group: Sizes) -> DeviceWork:
            blocks = filters // tile.filters
            return group_work(layer, patterns, blocks * inputs, blocks, tile)

        dividing = [
            tile
            for tile in (*TILES_OF_FOUR, Tile(1, 2, 2), Tile(1, 1, 1))
            if filters // layer.groups % tile.filters == 0
        ]
        return tile_candidates(layer, dividing, machine, work)

    def calls(self, layer: Conv2d, schedule: TileSchedule, scratch: Scratch) -> list[DeviceCall]:
        assert isinstance(layer.weight, np.ndarray)
        share = schedule.tile.filters
        connections = all_connections(layer.weight, layer.groups, share)
        weight = packed_connections(layer.weight, share, layer.x.dtype)
        return [
            replace(
                call,
                tables={name: table for name, table in call.tables.items() if name != "weight"},
                weights={"weight": weight},
                listed=None,
            )
            for call in calls_of_tiles(direct_call, layer, connections, schedule)
        ]

    def emit(self, layer: Conv2d, schedule: TileSchedule, b: DeviceProgramBuilder) -> None:
        emit_in_planes(layer, schedule, self.calls, b)


def all_connections(weight: np.ndarray, groups: int, share: int) -> FKW:
    """A dense weight as one pattern of all taps, zeros included."""
    blocks, (filters, inputs, kh, kw) = len(weight) // share, weight.shape
    values = weight.reshape(blocks, share, inputs, kh * kw).transpose(0, 2, 3, 1).reshape(-1, kh * kw, share)
    first = np.arange(blocks) * share // (filters // groups) * inputs
    return FKW(
        (filters, inputs, kh, kw),
        groups,
        share,
        every_tap(kh * kw),
        np.arange(filters, dtype=np.int32),
        (np.arange(blocks + 1) * inputs).astype(np.int32),
        (first[:, None] + np.arange(inputs)).ravel().astype(np.int32),
        np.tile(np.array([[0, inputs]], np.int32), (blocks, 1)),
        np.ascontiguousarray(values),
    )


def packed_connections(weight: np.ndarray, share: int, dtype: DType) -> PreparedWeight:
    """A dense weight (O, I, kh, kw) as `ConvDirect` reads it: (O / share, I, numbers that are stored), of each
    connection its taps, and of a tap the filters that share it."""
    filters, channels, taps = as_taps(weight).shape
    stored = stored_weights(taps, share)
    rows = np.empty((filters, 3), np.int32)
    group, lane = np.divmod(np.arange(filters), share)
    rows[:, 0], rows[:, 1], rows[:, 2] = group * (channels * stored) + lane, stored, share
    return packed_weight(weight, dtype, rows, filters // share * channels * stored)


FAMILY = DirectDense()
