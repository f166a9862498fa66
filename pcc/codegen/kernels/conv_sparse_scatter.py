"""Sparse convolution, input-stationary: each input is loaded once for all the filters of a block that use it.

The accumulators of a block of filters over one tile of positions live in L1. For each (input channel, pattern) that
some filter of the block keeps (a *segment*), the E tap vectors are loaded into registers once; then every such filter
takes its accumulators from L1, adds E weighted taps, and puts them back. Loads of inputs, unaligned and therefore dear,
are shared among filters that have nothing else in common: PatDNN's filter-level load redundancy elimination without
asking filters for a common structure. Inside a run of channels segments are ordered by their number of filters, so that
the inner loop's trip count repeats and branches are predicted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import sparse_tile as tile
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.sparse_tables import parts_of, scatter_tables
from pcc.codegen.kernels.stage import stage, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import FLOAT32, DType
from pcc.sparsity.fkw import FKW, places

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


CHANNELS_IN_L1 = 8
"""Input channels whose segments are mixed, to bring segments of like length together, while their inputs stay in L1."""

INPUT_REGISTERS = {16: 9, 32: 20}
"""Registers for inputs, of those an instruction set has."""

LONGEST_CHAIN = 8
"""Taps that are added to an accumulator at a time. Each multiply-add waits for the one before it, so that several
connections have to be under way; the scheduler of a core holds those of about 64 multiply-adds. (Timed with 9: 1.3 to
1.45 times what the multiply-adds take.)"""

MOST_SUMS_BYTES = 24 << 10
"""Accumulators of a block of filters, which lie on the stack."""


@dataclass(frozen=True)
class ScatterSchedule:
    """Tiles of ``size`` positions (whole vectors) of ``block`` filters; ``room`` is for how many filters the kernel has
    accumulators."""

    size: int
    block: int
    room: int
    most_taps: int
    """Taps of a connection that are taken at a time."""

    def __str__(self) -> str:
        return f"tiles of {self.block} filters x {self.size} positions"

    def variants(self) -> Iterator["ScatterSchedule"]:
        """Fewer filters at a time."""
        yield from (replace(self, block=-(-self.block // parts)) for parts in (2, 4) if self.block >= parts)


@dataclass(frozen=True)
class ScatterFamily:
    """Input-stationary sparse convolution."""

    name: str = "conv-sparse-scatter"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate]:
        fkw, lanes = tile.fkw_of(layer), machine.isa.lanes(FLOAT32)
        positions = tile.positions_of(layer)
        staging, load = (
            staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual),
            tap_loads(layer.x, layer.geometry, 1),
        )
        found = []
        for vectors in range(
            1, min(4, -(-positions // lanes)) + 1
        ):  # wider tiles would read past the slack after a tensor
            schedule = schedule_of(fkw.shape[0], vectors, machine)
            tiles = layer.x.shape[0] * -(-positions // schedule.size)
            found.append(Candidate(schedule, tile_work(fkw, schedule, vectors, load, machine) * tiles + staging))
        return found

    def emit(self, layer: Conv2d, schedule: ScatterSchedule, b: ProgramBuilder) -> None:
        fkw = tile.fkw_of(layer)
        staged = stage(b, layer.x, layer.geometry)
        arrays, taps = block_arrays(fkw, schedule, staged.taps, staged.plane)
        kernel = ConvSparseScatter(
            taps, schedule.size, schedule.room, Epilogue(layer.residual is not None, layer.activation)
        )
        tile.record(b, layer, staged, kernel, schedule.size, -(-fkw.shape[0] // schedule.block), tile.Parts(arrays, {}))


FAMILY = ScatterFamily()


def schedule_of(filters: int, vectors: int, machine: Machine) -> ScatterSchedule:
    """Tiles of so many vectors, with as many filters as their accumulators leave room for."""
    room = min(machine.l1_bytes // 2, MOST_SUMS_BYTES) // (vectors * machine.isa.vector_bytes)
    block = -(-filters // -(-filters // room))
    most_taps = min(INPUT_REGISTERS[machine.isa.registers] // vectors, LONGEST_CHAIN)
    return ScatterSchedule(vectors * machine.isa.lanes(FLOAT32), block, room, most_taps)


def block_arrays(
    fkw: FKW, schedule: ScatterSchedule, taps_at: np.ndarray, plane: int
) -> tuple[dict[str, np.ndarray], int]:
    """What `sum_block` reads, and how many taps a connection has there; ``taps_at`` is where each tap of the window
    lies, channels are ``plane`` apart."""
    tables = scatter_tables(fkw, schedule.block, CHANNELS_IN_L1, schedule.most_taps)
    taps = tables.patterns.shape[1]
    arrays = {
        "weight": tables.weight,
        "taps": taps_at[tables.patterns],
        "blocks_at": tables.blocks,
        "segments": tables.segments * np.array([plane, taps, 1], np.int32),
        "slots": tables.slots * schedule.size,
    }
    return arrays, taps


def tile_work(fkw: FKW, schedule: ScatterSchedule, vectors: int, load: Work, machine: Machine) -> Work:
    """One tile of all filters of one image, stored in rows; ``load`` is what a vector of inputs costs. It goes through
    all weights and slots."""
    group, pattern = places(fkw)
    parts, taps = parts_of(fkw.patterns.shape[1], schedule.most_taps)
    blocks, channels, patterns = -(-fkw.shape[0] // schedule.block), fkw.shape[1] * fkw.groups, len(fkw.patterns)
    used = np.zeros((blocks, channels, patterns), bool)
    for member in range(fkw.share):  # a block may end inside a filter group
        used[(group * fkw.share + member) // schedule.block, fkw.index, pattern] = True
    # Trip counts change from one segment to the next: the branch is often mispredicted.
    segment = load * (taps * vectors) + Work(scalars=4 + taps, branches=4)
    connection, connections = (
        Work(fma=taps * vectors, updates=vectors, scalars=taps + 1, branches=1),
        len(fkw.index) * fkw.share * parts,
    )
    stored = Work(loads=vectors, stores=2 * vectors, scalars=2, branches=2)
    nbytes = connections * (taps + 1) * FLOAT32.bytes
    lines = nbytes / machine.isa.vector_bytes if nbytes > machine.l1_bytes and machine.costs.far > 0 else 0.0
    read = Work(loads=lines, far=lines) + machine.foreseen(nbytes)
    return segment * (int(used.sum()) * parts) + machine.loop(connection) * connections + stored * fkw.shape[0] + read


@dataclass(frozen=True)
class ConvSparseScatter:
    """An item is one tile of ``size`` positions (whole vectors) of one block of at most ``filters`` filters, of one
    image."""

    taps: int
    size: int
    filters: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_conv_sparse_scatter_e{self.taps}p{self.size}f{self.filters}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        return (*tile.INPUTS, *TABLES, *tile.POSITIONS, *tile.output_params(self.epilogue))

    def body(self, k: "KernelBuilder") -> None:
        size = self.size
        sums, origin = tile.aligned_local(k, self.filters * size)
        with k.work() as number:
            item = tile.decode(k, number, size)
            x_at = k.let(item.image * k["x_image"] + item.start)
            first, end = sum_block(k, item.block, x_at, range(0, size, k.lanes), self.taps, sums, origin)
            with k.loop(0, end - first) as slot:
                channel, at = k.let(k.load(k["channels"], first + slot)), k.let(origin + slot * size)
                with k.when_else(item.whole) as (then, otherwise):
                    with then:
                        tile.store_whole(
                            k,
                            self.epilogue,
                            item,
                            [k.load(sums, at + v, k.lanes) for v in range(0, size, k.lanes)],
                            channel,
                        )
                    with otherwise:
                        tile.store_rows(k, self.epilogue, item, sums, at, size, channel)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        for item in tile.reference_items(args, begin, end, self.size):
            for channel, values in reference_block(args, item.block, item.x, np.arange(self.size), self.taps):
                tile.reference_store(args, self.epilogue, item, values, channel)


TABLES = (Param("blocks_at", "i32*"), Param("segments", "i32*"), Param("slots", "i32*"))
"""Of `scatter_tables`, as `sum_block` takes them."""


def sum_block(
    k: "KernelBuilder", block: "Expr", x_at: "Expr", offsets: Sequence[int], taps: int, sums: "Buffer", origin: "Expr"
) -> tuple["Expr", "Expr"]:
    """Computes one tile of a block of filters into ``sums[origin:]``: bias and all connections. Returns the block's
    filters as (first, end).

    The tile's vectors lie ``offsets`` elements behind ``x_at`` in the input, and one behind the other in the sums.
    """
    first_filter, first_segment, end_filter, end_segment = (
        k.let(k.load(k["blocks_at"], block * 2 + field)) for field in range(4)
    )
    vectors = [i * k.lanes for i in range(len(offsets))]
    with k.loop(0, end_filter - first_filter) as slot:
        bias = k.let(k.splat(k.load(k["bias"], k.load(k["channels"], first_filter + slot)), k.lanes))
        for v in vectors:
            k.store(sums, origin + slot * (len(vectors) * k.lanes) + v, bias, k.lanes)
    with k.loop(first_segment, end_segment) as segment:
        channel_at, pattern, begin, end = (k.let(k.load(k["segments"], segment * 3 + field)) for field in (0, 1, 2, 5))
        inputs = []
        for e in range(taps):
            tap_at = k.let(x_at + channel_at + k.load(k["taps"], pattern + e))
            inputs.append([k.let(k.load(k["x"], tap_at + offset, k.lanes)) for offset in offsets])
        with k.loop(k.wide(begin), k.wide(end)) as connection:
            at = k.let(k.wide(origin + k.load(k["slots"], connection)))
            weights = tile.broadcast_weights(k, k["weight"], connection * taps, taps)
            values = [k.load(sums, at + v, k.lanes) for v in vectors]
            for e in range(taps):
                values = [k.let(value + weights[e] * inputs[e][i]) for i, value in enumerate(values)]
            for value, v in zip(values, vectors, strict=True):
                k.store(sums, at + v, value, k.lanes)
    return first_filter, end_filter


def reference_block(
    args: Mapping[str, Argument], block: int, x: np.ndarray, places: np.ndarray, taps: int
) -> Iterator[tuple[int, np.ndarray]]:
    """`sum_block` on numpy: the output channel and the sums of every filter; ``x`` begins at the tile, whose elements
    lie at ``places``."""
    taps_at, weight, slots = (np.asarray(args[name]) for name in ("taps", "weight", "slots"))
    edges, segments, channels = (np.asarray(args[name]) for name in ("blocks_at", "segments", "channels"))
    first_filter, first_segment, end_filter, end_segment = edges[block * 2 : block * 2 + 4]
    outputs = channels[first_filter:end_filter]
    sums = np.repeat(np.asarray(args["bias"])[outputs, None], len(places), axis=1)
    for segment in range(first_segment, end_segment):
        channel_at, pattern, first, _, _, last = segments[segment * 3 : segment * 3 + 6]
        inputs = np.stack([x[channel_at + tap + places] for tap in taps_at[pattern : pattern + taps]])
        sums[slots[first:last] // len(places)] += weight[first * taps : last * taps].reshape(-1, taps) @ inputs
    return zip(outputs.tolist(), sums, strict=True)
