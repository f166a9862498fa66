"""Dense 2-D convolution, any window, stride, padding, dilation and groups: the family that takes every convolution."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernels.dense_filters import ConvFilters
from pcc.codegen.kernels.dense_positions import ConvPositions
from pcc.codegen.kernels.dense_work import epilogue_strides, pack_channels, pack_weight, split_work
from pcc.codegen.kernels.epilogue import Epilogue, channel_arrays
from pcc.codegen.kernels.stage import Staged, stage, staged_pitch, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import REALS, DType

POSITIONS: dict[int, tuple[tuple[int, int], ...]] = {
    64: ((8, 3), (12, 2), (8, 2), (4, 4)),
    32: ((4, 2),),
    16: ((8, 3), (8, 2), (4, 4)),
}
"""(filters, vectors) of the tiles with positions in lanes, for each size of vectors, in bytes.

AVX2 has 16 registers, and LLVM keeps an activation's constants in some of them all the time: 12 accumulators would be
spilled in the inner loop.
"""

FILTERS: dict[int, tuple[tuple[int, int], ...]] = {
    64: ((14, 2), (7, 3)),
    32: ((6, 2), (5, 2), (4, 3)),
    16: ((14, 2), (7, 3)),
}
"""(positions, vectors) of the tiles with filters in lanes: so many positions at most."""

WEIGHTS_STAY = (32,)
"""Sizes of vectors, in bytes, with which a block's weights stay in the L1 cache while tiles of inputs pass, and not a
tile's inputs while blocks pass. AVX2's small tiles need both so often that this, with few instructions that ask for
either ahead, made MobileNetV2 a tenth faster on a Zen 3. The larger tiles of other vectors were not timed so."""

STEPS = 4
"""Steps of the depth that are written out for cores that find loads to pair by themselves, and for AVX2's small tiles.
The loop's own instructions are a quarter of those beside multiply-adds there (Cortex-A76: 1.33 instructions for a
multiply-add became 1.22; a Zen 3 took 0.95 times as long); on cores that execute in order LLVM would load all of the
steps first, and spill."""


@dataclass(frozen=True)
class DenseTile:
    """A tile of ``filters`` filters times ``positions`` positions, either of which are in the lanes of vectors."""

    in_lanes: Literal["positions", "filters"]
    filters: int
    positions: int
    prefetch: bool
    steps: int = 1
    """Of the depth, written out in the inner loop."""
    by_rows: bool = False
    """Whether tiles with positions in lanes end with a row, too."""
    weights_stay: bool = False
    """Whether, with filters in lanes, the weights of a block stay in the L1 cache while inputs pass; else the inputs of
    a tile do."""

    @property
    def in_rows(self) -> bool:
        """Whether every tile lies in one row."""
        return self.by_rows or self.in_lanes == "filters"

    def __str__(self) -> str:
        prefetch = ", prefetch" if self.prefetch else ""
        steps = f", {self.steps} steps written out" if self.steps > 1 else ""
        rows = ", by rows" if self.by_rows else ""
        stay = ", weights stay" if self.weights_stay else ""
        return (
            f"tiles of {self.filters} filters x {self.positions} positions, {self.in_lanes} in lanes{rows}{stay}"
            f"{prefetch}{steps}"
        )

    def variants(self) -> Iterator["DenseTile"]:
        """What the costs do not tell apart."""
        yield replace(self, prefetch=not self.prefetch)

    def kernel(self, lanes: int, epilogue: Epilogue) -> ConvPositions | ConvFilters:
        if self.in_lanes == "positions":
            return ConvPositions(
                self.filters, self.positions // lanes, lanes, epilogue, self.prefetch, self.steps, self.by_rows
            )
        return ConvFilters(
            self.positions, self.filters // lanes, lanes, epilogue, self.prefetch, self.steps, self.weights_stay
        )

    def tiles(self, rows: "_Rows") -> int:
        """Tiles of an image."""
        return rows.count * rows.across(self.positions) if self.in_rows else -(-rows.positions // self.positions)

    def together(self, rows: "_Rows") -> int:
        """Tiles that have to be in one item: those of a row, where the last of them overlaps the one before."""
        return rows.across(self.positions) if self.in_rows and rows.width % self.positions else 1

    def numbers(self, rows: "_Rows") -> dict[str, int]:
        """The arguments that say where tiles are."""
        return {
            "pitch": rows.pitch,
            "width": rows.width,
            **({"positions": rows.positions} if self.in_lanes == "positions" else {}),
            **({"across": rows.across(self.positions)} if self.in_rows else {}),
        }

    def work(self, layer: Conv2d, machine: Machine) -> Work:
        """Of one tile. What is not in lanes is spread over vectors or, multiplied by lane, loaded as some. With filters
        in lanes, both come from the L2 cache, but for weights that stay, and the tile is transposed."""
        weight, lanes = layer.weight, machine.isa.lanes(layer.x.dtype)
        assert isinstance(weight, np.ndarray)
        outputs, by_lane = self.filters * self.positions // lanes, machine.isa.multiply_add(layer.x.dtype).by_lane
        asked = (1 if self.weights_stay else 2) if self.prefetch else 0  # lines, at each step
        if self.in_lanes == "positions":
            weights = self.filters / lanes if by_lane and self.filters % lanes == 0 else self.filters
            step = Work(fma=outputs, loads=asked, scalars=weights + 1, branches=1 / self.steps) + tap_loads(
                layer.x, layer.geometry, self.positions // lanes
            )
            finish = Work(stores=outputs, scalars=self.filters, branches=1)
            if not self.by_rows:
                finish += self._pieces_work(_rows(layer), outputs)
        else:
            inputs, vectors = -(-self.positions // lanes) if by_lane else self.positions, self.filters // lanes
            near = self.weights_stay and self.filters * weight[0].nbytes <= machine.l1_bytes // 2
            step = Work(
                fma=outputs,
                loads=vectors + asked,
                far=(0 if near else vectors) + self.positions / lanes,
                scalars=inputs + 1,
                branches=1 / self.steps,
            )
            finish = Work(stores=outputs, lines=outputs, branches=1)
        return machine.loop(step) * weight[0].size + finish

    def _pieces_work(self, rows: "_Rows", vectors: int) -> Work:
        """What it costs, for a tile on average, that many are stored row by row, without the junk between rows."""
        if rows.count == 1:
            return Work()
        share = 1 - max(0, rows.width - self.positions + 1) / rows.pitch
        pieces = self.filters * (1 + self.positions / rows.pitch)
        return (Work(loads=vectors, stores=vectors) + Work(scalars=8, branches=4) * pieces) * share


@dataclass(frozen=True)
class _Rows:
    """The rows of outputs that tiles go along: ``count`` of ``width`` outputs, the inputs of each row ``pitch``
    positions after those of the one before."""

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
        lanes, rows = machine.isa.lanes(layer.x.dtype), _rows(layer)
        stay, prefetch = machine.isa.vector_bytes in WEIGHTS_STAY, machine.costs.far > 0
        steps = STEPS if machine.load_pair_reach or stay else 1
        tiles = [
            DenseTile("positions", filters, vectors * lanes, prefetch, steps)
            for filters, vectors in POSITIONS[machine.isa.vector_bytes]
        ]
        if rows.count > 1:
            tiles += [replace(tile, by_rows=True) for tile in tiles if tile.positions <= rows.width]
        if stay:
            prefetch = _asks(layer, steps * lanes, machine)
        in_lanes = [
            DenseTile("filters", vectors * lanes, rows.even_run(positions), prefetch, steps, weights_stay=stay)
            for positions, vectors in FILTERS[machine.isa.vector_bytes]
        ]
        if stay:  # a multiply-add takes as long in all of these tiles: those win that fill their last block best
            empty = [-layer.y.shape[1] // layer.groups % tile.filters for tile in in_lanes]
            in_lanes = [tile for tile, filters in zip(in_lanes, empty, strict=True) if filters == min(empty)]
        tiles += in_lanes
        return [Candidate(tile, _work(layer, tile, machine)) for tile in dict.fromkeys(tiles)]

    def emit(self, layer: Conv2d, schedule: DenseTile, b: ProgramBuilder) -> None:
        weight, rows, lanes = layer.weight, _rows(layer), b.isa.lanes(layer.x.dtype)
        assert isinstance(weight, np.ndarray)
        staged, block = stage(b, layer.x, layer.geometry), schedule.filters
        out_channels, channels = weight.shape[:2]
        offsets = _offsets(staged, channels)
        per_group = out_channels // layer.groups
        of_channels = channel_arrays(layer, lambda values: pack_channels(values, layer.groups, block))
        split, work = split_work(
            images=layer.x.shape[0],
            groups=layer.groups,
            blocks=-(-per_group // block),
            tiles=schedule.tiles(rows),
            depth=offsets.size,
            block=block,
            tile_cycles=offsets.size * schedule.filters * schedule.positions // lanes,
            together=schedule.together(rows),
            weights_stay=schedule.weights_stay,
        )
        b.call(
            schedule.kernel(lanes, Epilogue(layer.residual is not None, layer.activation)),
            {
                "x": staged.view,
                "x_image": staged.image,
                "x_group": channels * staged.plane,
                "w": b.packed(f"{layer.name}.weight", weight, partial(pack_weight, groups=layer.groups, block=block)),
                **b.named_constants(layer.name, of_channels),
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


def _work(layer: Conv2d, tile: DenseTile, machine: Machine) -> Work:
    """Whole tiles: junk columns, filled-up blocks and what is computed again included."""
    assert isinstance(layer.weight, np.ndarray)
    blocks = -(-(layer.weight.shape[0] // layer.groups) // tile.filters)
    tiles = layer.x.shape[0] * layer.groups * blocks * tile.tiles(_rows(layer))
    memory = machine.beyond(layer.y, layer.residual, asked=tile.prefetch) + machine.foreseen(layer.weight.nbytes)
    return tile.work(layer, machine) * tiles + staging_work(layer.x, layer.geometry, machine) + memory


def _asks(layer: Conv2d, steps: int, machine: Machine) -> bool:
    """Whether it pays to ask ahead where weights stay: for tensors from behind the L2 cache, in loops of that many
    steps.
    """
    assert isinstance(layer.weight, np.ndarray)
    return layer.weight[0].size >= steps and machine.beyond(layer.x, layer.y, layer.residual) != Work()


def _offsets(staged: Staged, channels: int) -> np.ndarray:
    """int32 (K,): where each step of the sum, channels outer and taps inner, reads relative to the position."""
    return (np.arange(channels)[:, None] * staged.plane + staged.taps).astype(np.int32).ravel()
