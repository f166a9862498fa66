"""Dense 2-D convolution, any window, stride, padding, dilation and groups: the family that takes every convolution."""

from dataclasses import dataclass

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels.dense_filters import ConvFilters
from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.dense_work import epilogue_strides, pack_bias, pack_weight, split_work
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.stage import Staged, stage, staged_pitch, staging_work, tap_loads
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, DType

POSITIONS: dict[int, tuple[tuple[int, int], ...]] = {16: ((8, 2), (4, 4)), 8: ((4, 2),), 4: ((8, 2), (4, 4))}
"""(filters, vectors) of the tiles with positions in lanes, for each number of lanes.

AVX2 has 16 registers, and LLVM keeps an activation's constants in some of them all the time: 12 accumulators would be spilled in the inner loop.
"""

FILTERS: dict[int, tuple[tuple[int, int], ...]] = {16: ((14, 2), (9, 3)), 8: ((5, 2), (6, 2)), 4: ((14, 2), (7, 3))}
"""(positions, vectors), at most, of the tiles with filters in lanes."""


@dataclass(frozen=True)
class DenseTile:
    """A tile of ``filters`` filters times ``vectors`` vectors of positions."""

    filters: int
    vectors: int

    def __str__(self) -> str:
        return f"tiles of {self.filters} filters x {self.vectors} vectors"


@dataclass(frozen=True)
class FilterTile:
    """A tile of ``vectors`` vectors of filters times ``positions`` positions."""

    vectors: int
    positions: int

    def __str__(self) -> str:
        return f"tiles of {self.vectors} vectors of filters x {self.positions} positions"


@dataclass(frozen=True)
class _Rows:
    """The flat positions a kernel goes through: ``positions`` in all, of every ``pitch`` the first ``width`` are outputs."""

    positions: int
    pitch: int
    width: int


def _rows(layer: Conv2d, pitch: int) -> _Rows:
    """Planes without junk on either side are one long row."""
    height, width = layer.geometry.output_size(*layer.x.shape[2:])
    positions = (height - 1) * pitch + width
    strides = [view.strides[2] for view in (layer.y, layer.residual) if view is not None]
    return _Rows(positions, positions, positions) if height == 1 or all(stride == pitch == width for stride in strides) else _Rows(positions, pitch, width)


@dataclass(frozen=True)
class ConvDense:
    """Tiles of filters and flat positions, driven by a table of offsets."""

    name: str = "conv-dense"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate]:
        lanes = machine.isa.lanes(FLOAT32)
        flat = [Candidate(tile, _work(layer, tile, machine)) for tile in (DenseTile(*tile) for tile in POSITIONS[lanes])]
        runs = _runs(layer)
        tiles = {FilterTile(vectors, runs.run(positions)) for positions, vectors in FILTERS[lanes]}
        return [*flat, *(Candidate(tile, _filter_work(layer, tile, machine)) for tile in sorted(tiles, key=str))]

    def emit(self, layer: Conv2d, schedule: DenseTile | FilterTile, b: ProgramBuilder) -> None:
        if isinstance(schedule, DenseTile):
            _emit(layer, schedule, b)
        else:
            _emit_filters(layer, schedule, b)


FAMILY = ConvDense()


@dataclass(frozen=True)
class _Runs:
    """The rows of outputs that tiles with filters in lanes go along: ``rows`` of ``width`` outputs each, whose inputs are ``step`` elements apart in a
    row, and ``x_row`` from row to row."""

    rows: int
    width: int
    step: int
    x_row: int

    def run(self, most: int) -> int:
        """The positions of a tile, at most so many, so that those of a row are about as many."""
        return -(-self.width // -(-self.width // most))

    def across(self, run: int) -> int:
        """Tiles of a row."""
        return -(-self.width // run)


def _runs(layer: Conv2d) -> _Runs:
    """Where the input is read: in place unless it is padded."""
    (height, width), geometry = layer.geometry.output_size(*layer.x.shape[2:]), layer.geometry
    if any(geometry.padding):
        step, x_row = 1, staged_pitch(layer.x, geometry)
    else:
        step, x_row = geometry.stride[1], geometry.stride[0] * layer.x.strides[2]
    strides = [view.strides[2] for view in (layer.y, layer.residual) if view is not None]
    flat = height == 1 or (step == 1 and all(stride == x_row == width for stride in strides))
    return _Runs(1, height * width, step, 0) if flat else _Runs(height, width, step, x_row)


def _filter_work(layer: Conv2d, tile: FilterTile, machine: Machine) -> Work:
    """Whole tiles, as `_work`; a tile is transposed when it is done."""
    weight, lanes, runs = layer.weight, machine.isa.lanes(FLOAT32), _runs(layer)
    assert isinstance(weight, np.ndarray)
    blocks = -(-(weight.shape[0] // layer.groups) // (tile.vectors * lanes))
    outputs = tile.vectors * tile.positions
    inputs = -(-tile.positions * runs.step // lanes) if machine.isa.multiply_add(FLOAT32).by_lane else tile.positions
    step = Work(fma=outputs, loads=tile.vectors, far=tile.vectors, scalars=inputs + 1, branches=1)
    item = step * weight[0].size + Work(stores=outputs, lines=outputs, branches=1)
    tiles = runs.rows * runs.across(tile.positions)
    padded = any(layer.geometry.padding)
    brought = staging_work(layer.x, layer.geometry, machine) if padded else machine.beyond(layer.x)
    return item * (layer.x.shape[0] * layer.groups * blocks * tiles) + brought + machine.beyond(layer.y, layer.residual)


def _emit_filters(layer: Conv2d, schedule: FilterTile, b: ProgramBuilder) -> None:
    weight, runs, lanes, geometry = layer.weight, _runs(layer), b.isa.lanes(FLOAT32), layer.geometry
    assert isinstance(weight, np.ndarray)
    kernel = ConvFilters(schedule.positions, schedule.vectors, lanes, runs.step, Epilogue(layer.residual is not None, layer.activation))
    out_channels, channels = weight.shape[:2]
    if any(geometry.padding):
        staged = stage(b, layer.x, geometry)
    else:
        unit = ConvGeometry(geometry.window, (1, 1), (0, 0, 0, 0), geometry.dilation)
        staged = stage(b, layer.x, unit)
    offsets = _offsets(staged, channels)
    per_group, across = out_channels // layer.groups, runs.across(schedule.positions)
    tiles = runs.rows * across
    split, work = split_work(
        images=layer.x.shape[0],
        groups=layer.groups,
        blocks=-(-per_group // kernel.filters),
        tiles=tiles,
        depth=offsets.size,
        block=kernel.filters,
        tile_cycles=offsets.size * schedule.positions * schedule.vectors,
        together=1 if runs.width % schedule.positions == 0 else across,
    )
    height, width = geometry.output_size(*layer.x.shape[2:])
    b.call(
        kernel,
        {
            "x": staged.view,
            "x_image": staged.image,
            "x_group": channels * staged.plane,
            "x_row": runs.x_row,
            "w": b.constant(f"{layer.name}.weight", pack_weight(weight, layer.groups, kernel.filters)),
            "bias": b.constant(f"{layer.name}.bias", pack_bias(layer.bias, out_channels, layer.groups, kernel.filters)),
            "offsets": b.constant(f"offsets_{channels}x{len(staged.taps)}_{staged.plane}", offsets),
            "width": runs.width,
            "across": across,
            "filters": per_group,
            **epilogue_strides(layer.y, layer.residual),
            **split,
        },
        work=work,
        macs=layer.x.shape[0] * out_channels * height * width * offsets.size,
    )


def _work(layer: Conv2d, tile: DenseTile, machine: Machine) -> Work:
    """Whole tiles: junk columns and filled-up blocks included. Weights are spread over vectors, or, multiplied by lane, loaded as some."""
    weight, lanes = layer.weight, machine.isa.lanes(FLOAT32)
    assert isinstance(weight, np.ndarray)
    blocks = -(-(weight.shape[0] // layer.groups) // tile.filters)
    tiles = -(-_rows(layer, staged_pitch(layer.x, layer.geometry)).positions // (tile.vectors * lanes))
    weights = tile.filters / lanes if machine.isa.multiply_add(FLOAT32).by_lane and tile.filters % lanes == 0 else tile.filters
    outputs = tile.filters * tile.vectors
    depth = weight[0].size
    step = Work(fma=outputs, scalars=weights + 1, branches=1) + tap_loads(layer.x, layer.geometry, tile.vectors)
    item = step * depth + Work(stores=outputs, scalars=tile.filters, branches=1)
    return item * (layer.x.shape[0] * layer.groups * blocks * tiles) + staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual)


def _emit(layer: Conv2d, schedule: DenseTile, b: ProgramBuilder) -> None:
    weight, filters = layer.weight, schedule.filters
    assert isinstance(weight, np.ndarray)
    staged = stage(b, layer.x, layer.geometry)
    kernel = ConvPositions(filters, schedule.vectors, b.isa.lanes(FLOAT32), Epilogue(layer.residual is not None, layer.activation))
    out_channels, channels = weight.shape[:2]
    rows = _rows(layer, staged.pitch)
    offsets = _offsets(staged, channels)
    per_group = out_channels // layer.groups
    split, work = split_work(
        images=layer.x.shape[0],
        groups=layer.groups,
        blocks=-(-per_group // filters),
        tiles=-(-rows.positions // kernel.run),
        depth=offsets.size,
        block=filters,
        tile_cycles=offsets.size * filters * schedule.vectors,
    )
    b.call(
        kernel,
        {
            "x": staged.view,
            "x_image": staged.image,
            "x_group": channels * staged.plane,
            "w": b.constant(f"{layer.name}.weight", pack_weight(weight, layer.groups, filters)),
            "bias": b.constant(f"{layer.name}.bias", pack_bias(layer.bias, out_channels, layer.groups, filters)),
            "offsets": b.constant(f"offsets_{channels}x{len(staged.taps)}_{staged.plane}", offsets),
            "positions": rows.positions,
            "pitch": rows.pitch,
            "width": rows.width,
            "filters": per_group,
            **epilogue_strides(layer.y, layer.residual),
            **split,
        },
        work=work,
        macs=layer.x.shape[0] * out_channels * staged.height * staged.width * offsets.size,
    )


def _offsets(staged: Staged, channels: int) -> np.ndarray:
    """int32 (K,): where each step of the sum, channels outer and taps inner, reads relative to the position."""
    return (np.arange(channels)[:, None] * staged.plane + staged.taps).astype(np.int32).ravel()
