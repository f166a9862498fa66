"""Ways to compute a convolution on a GPU: the schedules that each offers for a layer, what they execute, and their
calls.

A family is a file's worth of kernels and a line in `FAMILIES`. Costs are a profile's (`pcc.codegen.opencl.profiles`):
families only count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from pcc.codegen.family import WeightFormat
from pcc.codegen.kernels.winograd_forms import FORMS, WINDOW
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.conv_direct import direct_call, stored_weights, taps_of
from pcc.codegen.opencl.kernels.conv_gather import gather_call
from pcc.codegen.opencl.kernels.tile import Tile
from pcc.codegen.opencl.kernels.winograd import WinogradProduct
from pcc.codegen.opencl.kernels.winograd_calls import tile_counts, winograd_calls
from pcc.codegen.opencl.profiles import DeviceWork, GpuProfile
from pcc.codegen.program import View
from pcc.dtype import FLOAT32, DType
from pcc.sparsity.fkw import FKW
from pcc.sparsity.pattern import every_tap

Scratch = Callable[[str, int], View]
"""Makes a buffer for so many elements of a layer's type."""


@dataclass(frozen=True)
class DeviceCandidate:
    """A schedule of a family for a layer."""

    schedule: Any
    work: DeviceWork
    """What it executes, for an image."""


class DeviceFamily(Protocol):
    """A way to compute layers."""

    @property
    def name(self) -> str: ...

    @property
    def format(self) -> WeightFormat:
        """How it takes its weight: ``dense``, or the name of a format."""
        ...

    def candidates(self, layer: Conv2d, profile: GpuProfile) -> Sequence[DeviceCandidate] | str:
        """The schedules worth pricing, or why the family cannot compute this layer on such a GPU."""
        ...

    def calls(
        self, layer: Conv2d, schedule: Any, arithmetic: DType, profile: GpuProfile, scratch: Scratch
    ) -> list[DeviceCall]:
        """The calls that compute ``layer.y``, image by image."""
        ...


def images_of(layer: Conv2d) -> range:
    return range(layer.x.shape[0])


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
        inputs = 1 + np.mean([_loads(taps_of(pattern[None], layer.geometry)[0], tile, stride) for pattern in patterns])
    weights = max(1, stored_weights(taps, tile.filters) // LANES)
    stores = tile.filters * tile.rows * tile.vectors * (2 if layer.residual is not None else 1)
    tables = 2 if tile.filters == LANES else 2 * tile.filters
    loops = 1 if gathered else len(patterns)
    return DeviceWork(
        mads=turns * taps * tile.outputs,
        memory=turns * (float(inputs) + weights) + items * (stores + tables + loops + (1 if gathered else 2)),
        steps=turns,
        loops=items * loops,
        outputs=items * tile.outputs,
        items=items,
    )


def _loads(taps: Sequence[tuple[int, int]], tile: Tile, stride: tuple[int, int]) -> int:
    """Loads of a connection's inputs."""
    rows: dict[int, set[int]] = {}
    for row in range(tile.rows):
        for tap_row, tap_column in taps:
            rows.setdefault(row * stride[0] + tap_row, set()).update(
                tap_column + stride[1] * place for place in range(tile.columns)
            )
    return sum(len({column // LANES for column in columns}) for columns in rows.values())


def fits(tile: Tile, profile: GpuProfile, dtype: DType) -> bool:
    """Whether a tile's sums leave registers for what else is needed."""
    return tile.outputs * dtype.bytes <= profile.numbers * FLOAT32.bytes


_OF_FOUR = (Tile(4, 2, 2), Tile(4, 2, 1), Tile(4, 1, 2), Tile(4, 1, 1))


@dataclass(frozen=True)
class DirectDense:
    """All connections, window by window: any geometry, and convolution groups."""

    name: str = "opencl-conv-direct"
    format: WeightFormat = "dense"

    def candidates(self, layer: Conv2d, profile: GpuProfile) -> list[DeviceCandidate] | str:
        filters, inputs = layer.weight.shape[:2]
        found = []
        for tile in (*_OF_FOUR, Tile(1, 2, 2), Tile(1, 1, 1)):
            if fits(tile, profile, layer.x.dtype) and filters // layer.groups % tile.filters == 0:
                groups = filters // tile.filters
                patterns = np.arange(prod(layer.weight.shape[2:]))[None]
                found.append(DeviceCandidate(tile, group_work(layer, patterns, groups * inputs, groups, tile)))
        return found

    def calls(
        self, layer: Conv2d, schedule: Tile, arithmetic: DType, profile: GpuProfile, scratch: Scratch
    ) -> list[DeviceCall]:
        assert isinstance(layer.weight, np.ndarray)
        weight = all_connections(layer.weight, layer.groups, schedule.filters)
        return [
            direct_call(layer, weight, schedule, arithmetic, image, profile.local_size) for image in images_of(layer)
        ]


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


@dataclass(frozen=True)
class SparseDirect:
    """The connections that are kept, patterns compiled in; filter groups of 4 that share, or single filters."""

    name: str = "opencl-conv-sparse"
    format: WeightFormat = "fkw"
    gathered: bool = False

    def candidates(self, layer: Conv2d, profile: GpuProfile) -> list[DeviceCandidate] | str:
        weight = layer.weight
        assert isinstance(weight, FKW)
        if self.gathered:
            tiles = [Tile(weight.share, 1, 2), Tile(weight.share, 1, 1)]
        elif weight.share == LANES:
            tiles = list(_OF_FOUR)
        else:
            tiles = [Tile(weight.share, 2, 4), Tile(weight.share, 2, 2), Tile(weight.share, 1, 1)]
        groups = weight.shape[0] // weight.share
        found = []
        for tile in tiles:
            if fits(tile, profile, layer.x.dtype):
                work = group_work(layer, weight.patterns, len(weight.index), groups, tile, gathered=self.gathered)
                waiting = 1.0 if self.gathered else lanes_that_wait(weight, tile, layer, profile)
                found.append(DeviceCandidate(tile, work * waiting))
        return found

    def calls(
        self, layer: Conv2d, schedule: Tile, arithmetic: DType, profile: GpuProfile, scratch: Scratch
    ) -> list[DeviceCall]:
        assert isinstance(layer.weight, FKW)
        call = gather_call if self.gathered else direct_call
        return [
            call(layer, layer.weight, schedule, arithmetic, image, profile.local_size) for image in images_of(layer)
        ]


def lanes_that_wait(weight: FKW, tile: Tile, layer: Conv2d, profile: GpuProfile) -> float:
    """How much longer loops are because a wave that covers several filter groups runs each pattern's longest."""
    width, height, _ = tile.items(tile.filters, *layer.y.shape[2:])
    together = min(max(1, profile.wave // (width * height)), len(weight.stride))
    counts = np.diff(weight.stride, axis=1)
    if together == 1 or not counts.sum():
        return 1.0
    counts = np.pad(counts, ((0, -len(counts) % together), (0, 0)))
    waves = counts.reshape(-1, together, counts.shape[1])
    return float(waves.max(axis=1).sum() * together / counts.sum())


@dataclass(frozen=True)
class WinogradSchedule:
    """A product's tile, and how many tiles an item transforms."""

    filters: int
    vectors: int
    tiles: int


@dataclass(frozen=True)
class Winograd:
    """Dense 3x3 of stride 1 by F(2x2) or F(4x4)."""

    outputs: int
    format: WeightFormat = "dense"

    @property
    def name(self) -> str:
        return f"opencl-conv-winograd-{self.outputs}"

    def candidates(self, layer: Conv2d, profile: GpuProfile) -> list[DeviceCandidate] | str:
        geometry, form = layer.geometry, FORMS[self.outputs]
        if geometry != type(geometry)((WINDOW, WINDOW), padding=geometry.padding) or layer.groups > 1:
            return "only windows of 3x3 with stride, dilation and groups of 1"
        filters, channels = layer.weight.shape[:2]
        rows, columns = tile_counts(self.outputs, *layer.y.shape[2:])
        places, found, vectors = form.inputs**2, [], rows * columns // LANES
        tiles = LANES if self.outputs == 2 or profile.numbers >= 64 else 1
        stores = self.outputs * max(1, self.outputs * tiles // LANES) * (2 if layer.residual is not None else 1)
        loads = form.inputs * ((tiles * self.outputs) // LANES + 2)
        transforms = DeviceWork(
            memory=(rows * columns // tiles) * ((loads + places) * channels + (places + stores + 2) * filters),
            adds=rows
            * columns
            * (
                2 * form.inputs * form.input_adds * channels + (form.inputs + self.outputs) * form.output_adds * filters
            ),
            outputs=rows * columns * self.outputs**2 * filters,
            items=(rows * columns // tiles) * (channels + filters),
        )
        for product_filters, product_vectors in ((8, 2), (8, 1), (4, 1)):
            if product_filters * product_vectors * LANES > profile.numbers:
                continue
            groups = -(-filters // product_filters)
            items = -(-vectors // product_vectors) * groups * places
            reads = product_filters // LANES + product_vectors
            stored = product_filters * product_vectors
            product = DeviceWork(
                mads=items * channels * stored * LANES,
                memory=items * (channels * reads + stored),
                steps=items * sum(divmod(channels, LANES)),
                loops=items * 2,
                outputs=items * stored * LANES,
                items=items,
            )
            found.append(
                DeviceCandidate(WinogradSchedule(product_filters, product_vectors, tiles), product + transforms)
            )
        return found

    def calls(
        self, layer: Conv2d, schedule: WinogradSchedule, arithmetic: DType, profile: GpuProfile, scratch: Scratch
    ) -> list[DeviceCall]:
        if self.outputs > 2:
            arithmetic = FLOAT32
        product = WinogradProduct(self.outputs, layer.x.dtype, arithmetic, schedule.filters, schedule.vectors)
        return [
            call
            for image in images_of(layer)
            for call in winograd_calls(layer, product, scratch, image, profile.local_size, schedule.tiles)
        ]


FAMILIES: dict[str, DeviceFamily] = {
    family.name: family
    for family in (
        DirectDense(),
        Winograd(2),
        Winograd(4),
        SparseDirect(),
        SparseDirect("opencl-conv-sparse-gather", gathered=True),
    )
}


@dataclass(frozen=True)
class Offer:
    """A family's cheapest schedule for a layer, and what it costs."""

    family: str
    schedule: Any
    work: DeviceWork
    cost: float
    slots: float


def offers(layers: dict[WeightFormat, Conv2d], profile: GpuProfile) -> tuple[list[Offer], dict[str, str]]:
    """What the families offer for a layer, whose weight comes in some formats: the cheapest first; and why others do
    not. The first one's family is what the layer gets: where a sparse kernel is not better, that is a dense one."""
    found, refused = [], {}
    for name, family in FAMILIES.items():
        if family.format not in layers:
            refused[name] = f"the weight is not in the format '{family.format}'"
            continue
        candidates = family.candidates(layers[family.format], profile)
        if isinstance(candidates, str) or not candidates:
            refused[name] = candidates if isinstance(candidates, str) else "no tile fits"
            continue
        chosen = min(candidates, key=lambda candidate: profile.cost(candidate.work))
        cost, slots = profile.cost(chosen.work), profile.slots_of(chosen.work)
        found.append(Offer(name, chosen.schedule, chosen.work, cost, slots))
    return sorted(found, key=lambda offer: offer.cost), refused
