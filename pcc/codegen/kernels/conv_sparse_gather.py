"""Sparse convolution, output-stationary: a group of filters gathers the inputs it keeps into accumulators held in
registers.

One filter group of FKW at a time: for each pattern the E tap offsets are read once, then a tight loop runs over the
connections of that pattern; each adds E taps of its input channel to ``share`` x ``vectors`` accumulators. Nothing is
stored before a tile is done, which suits connections of few taps (1x1), where taking accumulators from memory would
cost more than the arithmetic.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import sparse_tile as tile
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.sparse_tables import gather_tables, parts_of
from pcc.codegen.kernels.stage import stage, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder
from pcc.dtype import REALS, DType
from pcc.sparsity.fkw import FKW

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


MOST_TAPS = 9
"""Connections of more taps are cut, so that the code stays small."""


@dataclass(frozen=True)
class GatherSchedule:
    """Tiles of ``size`` positions (whole vectors); an item takes ``block`` filter groups."""

    size: int
    block: int
    most_taps: int = MOST_TAPS
    """Taps of a connection that are taken at a time."""

    def __str__(self) -> str:
        return f"tiles of {self.size} positions"

    def variants(self) -> Iterator["GatherSchedule"]:
        """Smaller items, and connections in parts."""
        yield from (replace(self, block=self.block // parts) for parts in (2, 4) if self.block >= parts)
        yield from (replace(self, most_taps=taps) for taps in (2, 4) if taps < self.most_taps)


@dataclass(frozen=True)
class GatherFamily:
    """Output-stationary sparse convolution on flat positions."""

    name: str = "conv-sparse-gather"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = REALS

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        fkw, lanes = tile.fkw_of(layer), machine.isa.lanes(layer.x.dtype)
        groups, positions = fkw.shape[0] // fkw.share, tile.positions_of(layer)
        vectors_of_plane = -(-positions // lanes)  # wider tiles would read past the slack after a tensor
        staging, found = staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual), []
        for vectors in (1, 2, 3, 4, 8, 12, 16):
            if vectors * fkw.share <= machine.isa.registers // 2 and vectors <= vectors_of_plane:
                size, images = vectors * lanes, layer.x.shape[0]
                tiles = images * -(-positions // size)
                schedule = GatherSchedule(size, tile.groups_of_item(groups, fkw.weight.size * vectors / groups, tiles))
                last = (
                    images if positions > size and (positions - size) % lanes else 0
                )  # tiles that begin early, wherever that is in a line
                work = (
                    _tile_work(layer, fkw, schedule, machine) * (tiles - last)
                    + _tile_work(layer, fkw, schedule, machine, crossing=True) * last
                )
                found.append(Candidate(schedule, work + staging))
        return found

    def emit(self, layer: Conv2d, schedule: GatherSchedule, b: ProgramBuilder) -> None:
        fkw = tile.fkw_of(layer)
        staged = stage(b, layer.x, layer.geometry)
        tables = gather_tables(fkw, schedule.most_taps)
        patterns, taps = tables.patterns.shape
        arrays = {
            "weight": tables.weight,
            "taps": staged.taps[tables.patterns],
            "segments": tables.segments,
            "channels_at": tables.channels * staged.plane,
        }
        numbers = {"groups": fkw.shape[0] // fkw.share, "groups_per_item": schedule.block, "patterns": patterns}
        kernel = ConvSparseGather(
            taps, schedule.size, fkw.share, Epilogue(layer.residual is not None, layer.activation)
        )
        blocks = -(-fkw.shape[0] // (schedule.block * fkw.share))
        tile.record(b, layer, staged, kernel, schedule.size, blocks, tile.Parts(arrays, numbers))


FAMILY = GatherFamily()


def _tile_work(layer: Conv2d, fkw: FKW, schedule: GatherSchedule, machine: Machine, *, crossing: bool = False) -> Work:
    """One tile of all filters of one image; ``crossing``: its vectors begin anywhere in a cache line, whatever the
    window."""
    vectors = schedule.size // machine.isa.lanes(layer.x.dtype)
    parts, taps = parts_of(fkw.patterns.shape[1], schedule.most_taps)
    groups, sums = fkw.shape[0] // fkw.share, fkw.share * vectors
    loads = taps * vectors
    weights = (
        taps * fkw.share / (machine.isa.lanes(layer.x.dtype) if machine.isa.multiply_add(layer.x.dtype).by_lane else 1)
    )
    far = loads if fkw.shape[1] * schedule.size * layer.x.dtype.bytes > machine.l1_bytes else 0
    inputs = Work(crossing=loads) if crossing else tap_loads(layer.x, layer.geometry, loads)
    connection = inputs + Work(fma=taps * max(sums, machine.fma_in_flight), far=far, scalars=weights + 1, branches=1)
    segment = Work(scalars=2 + taps, branches=2)
    stored = Work(stores=sums, scalars=2 * fkw.share, branches=1)
    return (
        machine.loop(connection) * (len(fkw.index) * parts)
        + segment * (groups * len(fkw.patterns) * parts)
        + stored * groups
    )


@dataclass(frozen=True)
class ConvSparseGather:
    """An item is one tile of ``size`` positions (whole vectors) of ``groups_per_item`` filter groups of ``share``
    filters, of one image."""

    taps: int
    size: int
    share: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_conv_sparse_gather_e{self.taps}p{self.size}g{self.share}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        tables = (
            Param("segments", "i32*"),
            Param("channels_at", "i32*"),
            Param("groups"),
            Param("groups_per_item"),
            Param("patterns"),
        )
        return (*tile.INPUTS, *tables, *tile.POSITIONS, *tile.output_params(self.epilogue))

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        size, vectors = self.size, self.size // k.lanes
        sums, done = k.local(self.share * size), k.local(self.share * size)
        with k.work() as number:
            item = tile.decode(k, number, size)
            x_at = k.let(item.image * k["x_image"] + item.start)
            first_group = k.let(item.block * k["groups_per_item"])
            with k.loop(first_group, k.let(tirx.Min(first_group + k["groups_per_item"], k["groups"]))) as group:
                for f in range(self.share):
                    bias = k.let(k.splat(k.load(k["bias"], k.load(k["channels"], group * self.share + f)), k.lanes))
                    for v in range(vectors):
                        k.store(sums, f * size + v * k.lanes, bias, k.lanes)
                with k.loop(0, k["patterns"]) as pattern:
                    self._segment(k, k.let(group * k["patterns"] + pattern), pattern * self.taps, x_at, sums)
                with k.when_else(item.whole) as (then, otherwise):
                    with then:
                        for f in range(self.share):
                            values = [k.load(sums, f * size + v * k.lanes, k.lanes) for v in range(vectors)]
                            tile.store_whole(
                                k, self.epilogue, item, values, k.let(k.load(k["channels"], group * self.share + f))
                            )
                    with otherwise:
                        for v in range(self.share * vectors):
                            k.store(done, v * k.lanes, k.load(sums, v * k.lanes, k.lanes), k.lanes)
                        with k.loop(0, self.share) as f:
                            channel = k.let(k.load(k["channels"], group * self.share + f))
                            tile.store_rows(k, self.epilogue, item, done, f * size, size, channel)

    def _segment(self, k: "KernelBuilder", segment: "Expr", pattern: "Expr", x_at: "Expr", sums: "Buffer") -> None:
        """Adds the connections of one pattern of one filter group."""
        vectors = self.size // k.lanes
        begin, end = k.let(k.load(k["segments"], segment)), k.let(k.load(k["segments"], segment + 1))
        taps_at = [k.let(k.wide(x_at + k.load(k["taps"], pattern + e))) for e in range(self.taps)]
        with k.loop(k.wide(begin), k.wide(end)) as connection:
            channel_at = k.let(k.wide(k.load(k["channels_at"], connection)))
            weights = tile.broadcast_weights(
                k, k["weight"], connection * (self.taps * self.share), self.taps * self.share
            )
            for e in range(self.taps):
                tap_at = k.let(taps_at[e] + channel_at)
                inputs = (k.let(k.load(k["x"], tap_at + v * k.lanes, k.lanes)) for v in range(vectors))
                if k.isa.multiply_add(k.real).by_lane:  # weights are in few registers: inputs one at a time
                    for v, values in enumerate(inputs):
                        for f in range(self.share):
                            self._add(k, sums, f, v, weights[e * self.share + f] * values)
                else:
                    held = list(inputs)
                    for f in range(self.share):
                        for v, values in enumerate(held):
                            self._add(k, sums, f, v, weights[e * self.share + f] * values)

    def _add(self, k: "KernelBuilder", sums: "Buffer", f: int, v: int, value: "Expr") -> None:
        at = f * self.size + v * k.lanes
        k.store(sums, at, k.load(sums, at, k.lanes) + value, k.lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        segments, channels_at, weight = (np.asarray(args[name]) for name in ("segments", "channels_at", "weight"))
        patterns, per_item = int(args["patterns"]), int(args["groups_per_item"])
        taps = np.asarray(args["taps"])[: patterns * self.taps].reshape(patterns, self.taps)
        weight = weight[: weight.size // (self.taps * self.share) * self.taps * self.share].reshape(
            -1, self.taps, self.share
        )
        for item in tile.reference_items(args, begin, end, self.size):
            for group in range(item.block * per_item, min((item.block + 1) * per_item, int(args["groups"]))):
                channels = np.asarray(args["channels"])[group * self.share : (group + 1) * self.share]
                sums = np.repeat(np.asarray(args["bias"])[channels, None], self.size, axis=1)
                for pattern in range(patterns):
                    first, last = segments[group * patterns + pattern], segments[group * patterns + pattern + 1]
                    if first < last:
                        at = channels_at[first:last, None, None] + taps[pattern][:, None] + np.arange(self.size)
                        sums += np.einsum("keg,kep->gp", weight[first:last], item.x[at])
                for f, channel in enumerate(channels):
                    tile.reference_store(args, self.epilogue, item, sums[f], int(channel))
