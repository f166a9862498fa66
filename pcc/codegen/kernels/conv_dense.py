"""Dense 2-D convolution, any window, stride, padding, dilation and groups: the family that takes every convolution."""

from dataclasses import dataclass

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.dense_work import epilogue_strides, pack_bias, pack_weight, split_work
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.stage import Staged, stage, staged_pitch, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import REALS, DType

TILES: dict[int, tuple[tuple[int, int], ...]] = {64: ((8, 2), (4, 4)), 32: ((4, 2),), 16: ((8, 2), (4, 4))}
"""(filters, vectors) of the tiles for each size of vectors, in bytes.

AVX2 has 16 registers, and LLVM keeps an activation's constants in some of them all the time: 12 accumulators would be spilled in the inner loop.
"""


@dataclass(frozen=True)
class DenseTile:
    """A tile of ``filters`` filters times ``vectors`` vectors of positions."""

    filters: int
    vectors: int

    def __str__(self) -> str:
        return f"tiles of {self.filters} filters x {self.vectors} vectors"


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
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate]:
        return [Candidate(schedule, _work(layer, schedule, machine)) for schedule in (DenseTile(*tile) for tile in TILES[machine.isa.vector_bytes])]

    def emit(self, layer: Conv2d, schedule: DenseTile, b: ProgramBuilder) -> None:
        _emit(layer, schedule, b)


FAMILY = ConvDense()


def _work(layer: Conv2d, tile: DenseTile, machine: Machine) -> Work:
    """Whole tiles: junk columns and filled-up blocks included. Weights are spread over vectors, or, multiplied by lane, loaded as some."""
    weight, lanes = layer.weight, machine.isa.lanes(layer.x.dtype)
    assert isinstance(weight, np.ndarray)
    blocks = -(-(weight.shape[0] // layer.groups) // tile.filters)
    tiles = -(-_rows(layer, staged_pitch(layer.x, layer.geometry)).positions // (tile.vectors * lanes))
    weights = tile.filters / lanes if machine.isa.multiply_add(layer.x.dtype).by_lane and tile.filters % lanes == 0 else tile.filters
    outputs = tile.filters * tile.vectors
    depth = weight[0].size
    step = Work(fma=outputs, scalars=weights + 1, branches=1) + tap_loads(layer.x, layer.geometry, tile.vectors)
    item = step * depth + Work(stores=outputs, scalars=tile.filters, branches=1)
    return item * (layer.x.shape[0] * layer.groups * blocks * tiles) + staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual)


def _emit(layer: Conv2d, schedule: DenseTile, b: ProgramBuilder) -> None:
    weight, filters = layer.weight, schedule.filters
    assert isinstance(weight, np.ndarray)
    staged = stage(b, layer.x, layer.geometry)
    kernel = ConvPositions(filters, schedule.vectors, b.isa.lanes(layer.x.dtype), Epilogue(layer.residual is not None, layer.activation))
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
        arithmetic=layer.x.dtype,
    )


def _offsets(staged: Staged, channels: int) -> np.ndarray:
    """int32 (K,): where each step of the sum, channels outer and taps inner, reads relative to the position."""
    return (np.arange(channels)[:, None] * staged.plane + staged.taps).astype(np.int32).ravel()
