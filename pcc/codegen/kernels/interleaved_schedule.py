"""How convolutions on block-interleaved lines are cut: blocks in lanes, tiles, and channels at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pcc.codegen.kernels.interleave import Blocks, line_extent
from pcc.codegen.layers import Conv2d, PooledConv2d
from pcc.codegen.machine import Machine
from pcc.sparsity.fkw import FKW

MOST_MULTIPLIES = 1100
"""Vector multiply-adds in the code of a kernel: each takes 3 ms to compile."""

FEW_TAPS = 5
"""A line that more taps use lives longer: LLVM then spills accumulators unless half of the registers are free."""

BY_BLOCKS = (32,)
"""Bytes of the vectors whose tiles have channels in blocks where that is faster: with 16 registers, a tile has 8
accumulators, and a line is used for few multiply-adds. Other vectors were not timed with blocks."""

FILLED = 0.75
"""How much of the L1 cache the lines of a block may take, beside weights and waiting sums."""

OVERFLOW = 4
"""How many L1 caches the lines of all channels have to fill for blocks to pay: what a filter takes to begin and end its
patterns comes once more with each block. (3x3, connections 3.6x: 64 and 128 channels lose a tenth by it, 256 gain a
fifth, 512 a third and more.)"""


@dataclass(frozen=True)
class InterleavedSchedule:
    """How a layer is cut: blocks in the lanes, tiles of ``columns`` and of these numbers of rows, one strip after the
    other."""

    blocks: Blocks
    columns: int
    heights: tuple[tuple[int, int], ...]
    """(rows of a tile, how many tiles below each other)."""
    in_strips: bool = False
    """Whether the input is copied to lines a strip at a time, by the kernel that reads them; else whole, before."""
    prefetch: bool = False
    """Whether the cache lines of outputs are asked for ahead."""
    channels: int | None = None
    """Of a block that a tile reads at a time; None: it reads all at once."""

    def __str__(self) -> str:
        tiles = f"{self.blocks}, tiles of {' and '.join(f'{rows}x{self.columns}' for rows, _ in self.heights)}"
        tiles += f", {self.channels} channels at a time" if self.channels else ""
        return tiles + (", input by strips" if self.in_strips else "") + (", prefetch" if self.prefetch else "")

    def variants(self) -> Iterator["InterleavedSchedule"]:
        """With and without prefetches."""
        yield replace(self, prefetch=not self.prefetch)


def window_of(layer: Conv2d) -> tuple[int, int]:
    """Of the max pool that is part of a layer."""
    return layer.window if isinstance(layer, PooledConv2d) else (1, 1)


def schedules(layer: Conv2d, weight: FKW, machine: Machine) -> Iterator[InterleavedSchedule]:
    """Every cut of the plane into blocks, with every tile that the registers hold."""
    height, width = layer.geometry.output_size(*layer.x.shape[2:])
    down, right = window_of(layer)
    lanes, taps = machine.isa.lanes(layer.x.dtype), weight.patterns.shape[1]
    weights = (
        -(-taps * weight.share // lanes) if machine.isa.multiply_add(layer.x.dtype).by_lane else taps * weight.share
    )
    free = machine.isa.registers - weights - machine.loads_ahead - 2
    if taps > FEW_TAPS:
        free = min(free, machine.isa.registers // 2)
    sums = min(free, MOST_MULTIPLIES // (taps * len(weight.patterns))) // weight.share
    prefetch = layer.y.strides[0] * layer.y.shape[0] * layer.y.dtype.bytes > machine.l2_bytes // 2
    for across in range(1, lanes + 1):
        rows = _divided(_divided(height, lanes // across), down) * down
        for columns in range(right, min(sums, width) + 1, right):
            block_columns = _divided(_divided(width, across), columns) * columns
            if rows > height or block_columns > width:
                continue
            for tile_rows in range(down, min(sums // columns, rows) + 1, down):
                schedule = InterleavedSchedule(
                    Blocks(lanes, across, rows, block_columns),
                    columns,
                    _heights(rows, tile_rows, down),
                    prefetch=prefetch,
                )
                yield schedule
                yield from _by_blocks(layer, schedule, machine)


def _by_blocks(layer: Conv2d, schedule: InterleavedSchedule, machine: Machine) -> Iterator[InterleavedSchedule]:
    """The schedule with channels in blocks whose lines fit the L1 cache, where those of all do not. Outputs are not
    asked for: that would take place in the last block only, which is short."""
    channels = layer.x.shape[1]
    nbytes = tile_bytes(layer, max(rows for rows, _ in schedule.heights), schedule.columns, machine)
    fitting = int(FILLED * machine.l1_bytes / nbytes)
    if (
        machine.isa.vector_bytes in BY_BLOCKS
        and layer.groups == 1
        and fitting
        and channels * nbytes > OVERFLOW * machine.l1_bytes
    ):
        yield replace(schedule, channels=_divided(channels, _divided(channels, fitting)), prefetch=False)


def tile_bytes(layer: Conv2d, rows: int, columns: int, machine: Machine) -> int:
    """Of the lines of a channel that a tile reads."""
    lines = line_extent(rows, layer.geometry, 0) * line_extent(columns, layer.geometry, 1)
    return lines * machine.isa.vector_bytes


def _divided(size: int, parts: int) -> int:
    """The least size of which so many cover the whole."""
    return -(-size // parts)


def _heights(rows: int, tile_rows: int, step: int) -> tuple[tuple[int, int], ...]:
    """``rows`` in tiles of ``tile_rows`` and, for what is left, of one other height; all of them multiples of
    ``step``."""
    count, left = divmod(rows, tile_rows)
    if not left:
        return ((tile_rows, count),)
    if (tile_rows + left) % (2 * step) == 0:  # two of the mean height instead of a high and a low one
        heights = ((tile_rows, count - 1), ((tile_rows + left) // 2, 2))
        return heights if count > 1 else heights[1:]
    return (tile_rows, count), (left, 1)
