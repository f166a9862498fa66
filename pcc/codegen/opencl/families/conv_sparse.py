"""The connections that are kept: patterns compiled in, or taps from a table; filter groups of 4 that share, or single
filters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.families.conv_direct import TILES_OF_FOUR
from pcc.codegen.opencl.families.in_planes import emit_in_planes
from pcc.codegen.opencl.families.tiles import Scratch, TileSchedule, calls_of_tiles, group_work, tile_candidates
from pcc.codegen.opencl.kernels.conv_direct import direct_call
from pcc.codegen.opencl.kernels.conv_gather import gather_call
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.program import DeviceProgramBuilder
from pcc.codegen.range import Sizes
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.sparsity.fkw import FKW

TILES = {
    1: (Tile(1, 4, 4), Tile(1, 2, 4), Tile(1, 2, 2), Tile(1, 1, 1)),
    2: (Tile(2, 2, 4), Tile(2, 2, 2), Tile(2, 1, 1)),
    4: TILES_OF_FOUR,
}
"""By how many filters share their connections."""

HIGH_TILES = {1: Tile(1, 2, 8), 4: Tile(4, 2, 4)}
"""For strides of 1: of others they read so many rows that they spill."""

LARGEST_OF_HIGH = 4
"""Taps of a connection whose weights leave registers for a high tile of 4 filters: with more, or where numbers are
converted, it spills."""


@dataclass(frozen=True)
class SparseDirect:
    name: str = "opencl-conv-sparse"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = (FLOAT32, FLOAT16)
    border: int | None = 0
    gathered: bool = False

    def candidates(self, layer: Conv2d, machine: GpuProfile) -> Sequence[Candidate] | str:
        weight = layer.weight
        assert isinstance(weight, FKW)

        counts = np.diff(weight.stride, axis=1)
        loops = counts.sum(axis=1, keepdims=True) if self.gathered else counts

        def work(tile: Tile, group: Sizes) -> DeviceWork:
            blocks = weight.shape[0] // weight.share
            once = group_work(layer, weight.patterns, len(weight.index), blocks, tile, gathered=self.gathered)
            return once * lanes_that_wait(loops, group, machine)

        return tile_candidates(layer, self._tiles(layer, weight, machine), machine, work)

    def _tiles(self, layer: Conv2d, weight: FKW, machine: GpuProfile) -> Sequence[Tile]:
        share = weight.share
        if self.gathered:
            return Tile(share, 1, 2), Tile(share, 1, 1)
        converts = layer.x.dtype != machine.arithmetic(layer.x.dtype)
        has_room = share == 1 or (weight.patterns.shape[1] <= LARGEST_OF_HIGH and not converts)
        if share not in HIGH_TILES or layer.geometry.stride != (1, 1) or not has_room:
            return TILES[share]
        return HIGH_TILES[share], *TILES[share]

    def calls(self, layer: Conv2d, schedule: TileSchedule, scratch: Scratch) -> list[DeviceCall]:
        assert isinstance(layer.weight, FKW)
        return calls_of_tiles(gather_call if self.gathered else direct_call, layer, layer.weight, schedule)

    def emit(self, layer: Conv2d, schedule: TileSchedule, b: DeviceProgramBuilder) -> None:
        emit_in_planes(layer, schedule, self.calls, b)


def lanes_that_wait(counts: np.ndarray, group: Sizes, profile: GpuProfile) -> float:
    """How much longer loops are because a wave that covers several filter groups runs the longest of each; ``counts``
    are the turns of each filter group's loops."""
    together = min(max(1, profile.wave // (group[0] * group[1])), group[2])
    if together == 1 or not counts.sum():
        return 1.0
    counts = np.pad(counts, ((0, -len(counts) % together), (0, 0)))
    waves = counts.reshape(-1, together, counts.shape[1])
    return float(waves.max(axis=1).sum() * together / counts.sum())


FAMILY = SparseDirect()
GATHER_FAMILY = SparseDirect("opencl-conv-sparse-gather", gathered=True)
