"""Dense 2-D convolution, any window, stride, padding, dilation and groups: the family that takes every convolution."""

from dataclasses import dataclass

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels.dense_filters import ConvFilters
from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.dense_work import epilogue_strides, pack_bias, pack_weight, split_work
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.stage import Staged, stage, staged_pitch, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import REALS, DType

POSITIONS: dict[int, tuple[tuple[int, int], ...]] = {64: ((8, 3), (12, 2), (8, 2), (4, 4)), 32: ((4, 2),), 16: ((8, 3), (8, 2), (4, 4))}
"""(filters, vectors) of the tiles with positions in lanes, for each size of vectors, in bytes.

AVX2 has 16 registers, and LLVM keeps an activation's constants in some of them all the time: 12 accumulators would be spilled in the inner loop.
"""

FILTERS: dict[int, tuple[tuple[int, int], ...]] = {64: ((14, 2), (9, 3)), 32: ((6, 2), (5, 2)), 16: ((14, 2), (7, 3))}
"""(positions, vectors) of the tiles with filters in lanes: so many positions at most."""


@dataclass(frozen=True)
class PositionTile:
    """A tile of ``filters`` filters times ``vectors`` vectors of positions."""

    filters: int
    vectors: int
    prefetch: bool

    def __str__(self) -> str:
        return f"tiles of {self.filters} filters x {self.vectors} vectors{', prefetch' if self.prefetch else ''}"

    @property
    def outputs(self) -> int:
        """Vectors of outputs of a tile."""
        return self.filters * self.vectors

    def block(self, lanes: int) -> int:
        """Filters of a tile."""
        return self.filters

    def tiles(self, rows: "_Rows", lanes: int) -> int:
        """Tiles of an image."""
        return -(-rows.positions // (self.vectors * lanes))

    def kernel(self, lanes: int, epilogue: Epilogue) -> ConvPositions:
        return ConvPositions(self.filters, self.vectors, lanes, epilogue, self.prefetch)

    def numbers(self, rows: "_Rows") -> dict[str, int]:
        """The arguments that say where tiles are."""
        return {"positions": rows.positions, "pitch": rows.pitch, "width": rows.width}

    def together(self, rows: "_Rows") -> int:
        """Tiles that have to be in one item."""
        return 1

    def work(self, layer: Conv2d, machine: Machine) -> Work:
        """Of one tile. Weights are spread over vectors, or, multiplied by lane, loaded as some."""
        lanes, outputs = machine.isa.lanes(layer.x.dtype), self.outputs
        weights = self.filters / lanes if machine.isa.multiply_add(layer.x.dtype).by_lane and self.filters % lanes == 0 else self.filters
        step = Work(fma=outputs, scalars=weights + 1, branches=1) + tap_loads(layer.x, layer.geometry, self.vectors)
        return step * layer.weight[0].size + Work(stores=outputs, scalars=self.filters, branches=1)


@dataclass(frozen=True)
class FilterTile:
    """A tile of ``vectors`` vectors of filters times ``positions`` positions."""

    vectors: int
    positions: int
    prefetch: bool

    def __str__(self) -> str:
        return f"tiles of {self.vectors} vectors of filters x {self.positions} positions{', prefetch' if self.prefetch else ''}"

    @property
    def outputs(self) -> int:
        """Vectors of outputs of a tile."""
        return self.positions * self.vectors

    def block(self, lanes: int) -> int:
        """Filters of a tile."""
        return self.vectors * lanes

    def tiles(self, rows: "_Rows", lanes: int) -> int:
        """Tiles of an image."""
        return rows.count * rows.across(self.positions)

    def kernel(self, lanes: int, epilogue: Epilogue) -> ConvFilters:
        return ConvFilters(self.positions, self.vectors, lanes, epilogue, self.prefetch)

    def numbers(self, rows: "_Rows") -> dict[str, int]:
        """The arguments that say where tiles are."""
        return {"pitch": rows.pitch, "width": rows.width, "across": rows.across(self.positions)}

    def together(self, rows: "_Rows") -> int:
        """Tiles that have to be in one item: those of a row, where the last of them overlaps the one before."""
        return 1 if rows.width % self.positions == 0 else rows.across(self.positions)

    def work(self, layer: Conv2d, machine: Machine) -> Work:
        """Of one tile. Inputs are spread over vectors, or, multiplied by lane, loaded as some; weights come from the L2 cache."""
        lanes, outputs = machine.isa.lanes(layer.x.dtype), self.outputs
        inputs = -(-self.positions // lanes) if machine.isa.multiply_add(layer.x.dtype).by_lane else self.positions
        step = Work(fma=outputs, loads=self.vectors, far=self.vectors, scalars=inputs + 1, branches=1)
        return step * layer.weight[0].size + Work(stores=outputs, lines=outputs, branches=1)


@dataclass(frozen=True)
class _Rows:
    """The rows of outputs that tiles go along: ``count`` of ``width`` outputs, the inputs of each row ``pitch`` positions after those of the one before."""

    count: int
    width: int
    pitch: int

    @property
    def positions(self) -> int:
        """From the first output to the last."""
        return (self.count - 1) * self.pitch + self.width

    def across(self, run: int) -> int:
        """How many runs of outputs cover a row."""
        return -(-self.width // run)

    def even_run(self, most: int) -> int:
        """The shortest run, of which no more are needed than of ``most``."""
        return -(-self.width // self.across(most))


def _rows(layer: Conv2d) -> _Rows:
    """Planes without junk on either side are one long row."""
    (height, width), pitch = layer.geometry.output_size(*layer.x.shape[2:]), staged_pitch(layer.x, layer.geometry)
    strides = [view.strides[2] for view in (layer.y, layer.residual) if view is not None]
    is_flat = height == 1 or all(stride == pitch == width for stride in strides)
    return _Rows(1, height * width, height * width) if is_flat else _Rows(height, width, pitch)


@dataclass(frozen=True)
class ConvDense:
    """Tiles of filters and positions, driven by a table of offsets."""

    name: str = "conv-dense"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "dense"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate]:
        rows = _rows(layer)
        prefetch = machine.costs.far > 0
        tiles: list[PositionTile | FilterTile] = [PositionTile(filters, vectors, prefetch) for filters, vectors in POSITIONS[machine.isa.vector_bytes]]
        runs = {(vectors, rows.even_run(positions)) for positions, vectors in FILTERS[machine.isa.vector_bytes]}
        tiles += [FilterTile(vectors, run, prefetch) for vectors, run in sorted(runs)]
        return [Candidate(tile, _work(layer, tile, machine)) for tile in tiles]

    def emit(self, layer: Conv2d, schedule: PositionTile | FilterTile, b: ProgramBuilder) -> None:
        weight, rows, lanes = layer.weight, _rows(layer), b.isa.lanes(layer.x.dtype)
        assert isinstance(weight, np.ndarray)
        staged, block = stage(b, layer.x, layer.geometry), schedule.block(lanes)
        out_channels, channels = weight.shape[:2]
        offsets = _offsets(staged, channels)
        per_group = out_channels // layer.groups
        split, work = split_work(
            images=layer.x.shape[0],
            groups=layer.groups,
            blocks=-(-per_group // block),
            tiles=schedule.tiles(rows, lanes),
            depth=offsets.size,
            block=block,
            tile_cycles=offsets.size * schedule.outputs,
            together=schedule.together(rows),
        )
        b.call(
            schedule.kernel(lanes, Epilogue(layer.residual is not None, layer.activation)),
            {
                "x": staged.view,
                "x_image": staged.image,
                "x_group": channels * staged.plane,
                "w": b.constant(f"{layer.name}.weight", pack_weight(weight, layer.groups, block)),
                "bias": b.constant(f"{layer.name}.bias", pack_bias(layer.bias, out_channels, layer.groups, block)),
                "offsets": b.constant(f"offsets_{channels}x{len(staged.taps)}_{staged.plane}", offsets),
                "filters": per_group,
                **schedule.numbers(rows),
                **epilogue_strides(layer.y, layer.residual),
                **split,
            },
            work=work,
            macs=layer.x.shape[0] * out_channels * staged.height * staged.width * offsets.size,
            arithmetic=layer.x.dtype,
        )


FAMILY = ConvDense()


def _work(layer: Conv2d, tile: PositionTile | FilterTile, machine: Machine) -> Work:
    """Whole tiles: junk columns, filled-up blocks and what is computed again included."""
    lanes = machine.isa.lanes(layer.x.dtype)
    blocks = -(-(layer.weight.shape[0] // layer.groups) // tile.block(lanes))
    tiles = layer.x.shape[0] * layer.groups * blocks * tile.tiles(_rows(layer), lanes)
    return tile.work(layer, machine) * tiles + staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual)


def _offsets(staged: Staged, channels: int) -> np.ndarray:
    """int32 (K,): where each step of the sum, channels outer and taps inner, reads relative to the position."""
    return (np.arange(channels)[:, None] * staged.plane + staged.taps).astype(np.int32).ravel()
