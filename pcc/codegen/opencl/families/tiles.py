"""Schedules of tiled convolutions, and what they execute."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pcc.codegen.family import Candidate
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.conv_direct import head_size, stored_weights, taps_of
from pcc.codegen.opencl.kernels.tile import Tile, row_multiple_of
from pcc.codegen.opencl.planes import LEFT
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.opencl.work_group import idle_share, work_groups
from pcc.codegen.program import View
from pcc.codegen.range import Sizes
from pcc.dtype import FLOAT16, FLOAT32, DType
from pcc.sparsity.fkw import FKW

Scratch = Callable[[str, int], View]
"""Makes a buffer for so many elements of a layer's type."""

LARGEST_STRIDE = 3
"""A tile that reaches below its map reads so many rows of what a buffer has behind it."""

_GROUPS = 3
"""Work-groups that are offered for a tile: the cheapest."""


@dataclass(frozen=True)
class TileSchedule:
    """What a work-item computes, which items form a group, and what sums are in. Tensors lie in planes."""

    tile: Tile
    group: Sizes
    sums: DType
    sinks_weights: bool = False
    """Whether kernels load weights where they are used (`GpuProfile.sinks_weights`)."""

    def __str__(self) -> str:
        return f"tile {self.tile.symbol}, groups of {'x'.join(map(str, self.group))}, planes, sums in {self.sums}"


def out_of_reach(layer: Conv2d) -> str:
    """Why tiles do not reach all that a convolution reads; nothing where they do."""
    geometry = layer.geometry
    if max(geometry.padding[1], geometry.padding[3]) > LEFT:
        return f"more than {LEFT} columns of padding"
    return f"a stride of more than {LARGEST_STRIDE}" if max(geometry.stride) > LARGEST_STRIDE else ""


def tile_candidates(
    layer: Conv2d, tiles: Sequence[Tile], profile: GpuProfile, work: Callable[[Tile, Sizes], DeviceWork]
) -> list[Candidate] | str:
    """Each tile whose sums fit a work-item's registers, in the work-groups that suit the map; ``work`` is what all
    items execute for an image."""
    if reason := out_of_reach(layer):
        return reason
    sums, filters, size = profile.arithmetic(layer.x.dtype), layer.weight.shape[0], layer.y.shape[2:]
    found: list[Candidate] = []
    for tile in tiles:
        if fits(tile.outputs, profile, sums):
            items = tile.items(filters, *size)
            offers = [
                Candidate(
                    TileSchedule(tile, group, sums, profile.sinks_weights),
                    converted(work(tile, group), layer.x.dtype, sums) * (layer.x.shape[0] * idle_share(items, group)),
                )
                for group in work_groups(items, whole=False)
            ]
            found += sorted(offers, key=lambda offer: profile.cycles(offer.work))[:_GROUPS]
    return found or "no tile fits"


def converted(work: DeviceWork, dtype: DType, sums: DType) -> DeviceWork:
    """The work with what it takes to convert all numbers that come from memory, and go there, where these are of
    another type than sums."""
    return work if dtype == sums else work + DeviceWork(adds=LANES * work.memory)


def fits(outputs: int, profile: GpuProfile, sums: DType) -> bool:
    """Whether so many sums leave registers for what else a work-item needs."""
    return outputs * sums.bytes <= profile.numbers * FLOAT32.bytes


def calls_of_tiles(
    call: Callable[[Conv2d, FKW, Tile, DType, int, Sizes, bool], DeviceCall],
    layer: Conv2d,
    weight: FKW,
    schedule: TileSchedule,
) -> list[DeviceCall]:
    """One call an image."""
    return [
        call(layer, weight, schedule.tile, schedule.sums, image, schedule.group, schedule.sinks_weights)
        for image in range(layer.x.shape[0])
    ]


def group_work(
    layer: Conv2d, patterns: np.ndarray, connections: int, groups: int, tile: Tile, *, gathered: bool = False
) -> DeviceWork:
    """What tiles execute for so many connections of filter groups."""
    stride, taps = layer.geometry.stride, patterns.shape[1]
    width, height, _ = tile.items(tile.filters, *layer.y.shape[2:])
    items, turns = width * height * groups, width * height * connections
    if gathered:
        numbers = 1 if stride[1] == 1 else LANES
        inputs = taps * tile.rows * tile.vectors * numbers + -(-taps // LANES)
    else:
        of_patterns = [taps_of(pattern[None], layer.geometry)[0] for pattern in patterns]
        inputs = 1 + np.mean([_loads(found, tile, stride, layer.x.dtype) for found in of_patterns])
    stored = stored_weights(taps, tile.filters)
    weights = stored // pair_size(layer.x.dtype) if stored % (2 * LANES) == 0 else max(1, stored // LANES)
    stores = tile.filters * tile.rows * tile.vectors // vectors_of_store(layer.y, tile.vectors)
    stores *= 2 if layer.residual is not None else 1
    tables = 2 if tile.filters == LANES else 2 * tile.filters
    loops = 1 if gathered else len(patterns)
    heads = 2 if gathered else head_size(len(patterns)) // LANES
    return DeviceWork(
        mads=turns * taps * tile.outputs,
        memory=turns * (float(inputs) + weights) + items * (stores + tables + heads),
        steps=turns,
        loops=items * loops,
        outputs=items * tile.outputs,
        items=items,
    )


def vectors_of_store(y: View, vectors: int) -> int:
    """How many vectors a store has, of so many side by side in the rows of a layer's output."""
    return 2 if row_multiple_of(y.shape[3], y.dtype) == 2 * LANES and vectors % 2 == 0 else 1


def pair_size(dtype: DType) -> int:
    """How many numbers a load has where two vectors that lie side by side are wanted: 16 bytes."""
    return 2 * LANES if dtype == FLOAT16 else LANES


def _loads(taps: Sequence[tuple[int, int]], tile: Tile, stride: tuple[int, int], dtype: DType) -> int:
    """Loads of a connection's inputs."""
    rows: dict[int, set[int]] = {}
    for row in range(tile.rows):
        for tap_row, tap_column in taps:
            rows.setdefault(row * stride[0] + tap_row, set()).update(
                tap_column + stride[1] * place for place in range(tile.columns)
            )
    in_pairs = pair_size(dtype) > LANES and tile.columns * stride[1] % (2 * LANES) == 0
    return sum(_vector_loads(columns, in_pairs=in_pairs) for columns in rows.values())


def _vector_loads(columns: set[int], *, in_pairs: bool) -> int:
    """Loads of some columns of a row, as `load_columns` makes them: two vectors of which more than a number is needed
    are one load, where they may be."""
    vectors = Counter(column // LANES for column in columns)
    whole = {vector for vector, count in vectors.items() if count > 1}
    pairs = sum(vector % 2 == 0 and vector + 1 in whole for vector in whole) if in_pairs else 0
    return len(vectors) - pairs
