"""Sparse 1x1 convolution, output-stationary, several filters at once: an input that some of them keep is loaded once.

An item is a tile of flat positions of some filter groups. A group's input channels are listed by the set of its filters that keep them; the code for
a set has its multiply-adds written out, so that loads, not decisions, are what is left. Planes are flat and, where they start at cache lines
(`ProgramBuilder.planes`), no load crosses one and whole vectors are stored up to the end of the last line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.family import Candidate, WeightFormat
from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import math, sparse_tile
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.kernels.sparse_tables import shared_tables, users_of_channels
from pcc.codegen.kernels.stage import is_staged, stage, staging_work, tap_loads
from pcc.codegen.layers import Conv2d
from pcc.codegen.machine import Machine, Work
from pcc.codegen.program import ProgramBuilder, View, has_whole_lines
from pcc.dtype import FLOAT32, DType
from pcc.sparsity.fkw import FKW

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder

TILES: dict[int, tuple[tuple[int, int], ...]] = {
    16: ((1, 13), (2, 7), (2, 13), (3, 7), (4, 5)),
    8: ((1, 13), (2, 4), (2, 6)),
    4: ((1, 13), (1, 16), (2, 13)),
}
"""(filters, vectors) of the tiles for each number of lanes."""


@dataclass(frozen=True)
class PointwiseSchedule:
    """Tiles of ``filters`` filters times ``vectors`` vectors; an item takes ``block`` such groups of filters."""

    filters: int
    vectors: int
    block: int

    def __str__(self) -> str:
        return f"tiles of {self.filters} filters x {self.vectors} vectors"


@dataclass(frozen=True)
class PointwiseFamily:
    """Output-stationary sparse 1x1 convolution on flat planes."""

    name: str = "conv-sparse-pointwise"
    layer: type[Conv2d] = Conv2d
    format: WeightFormat = "fkw"
    dtypes: tuple[DType, ...] = (FLOAT32,)

    def candidates(self, layer: Conv2d, machine: Machine) -> list[Candidate] | str:
        fkw, lanes = sparse_tile.fkw_of(layer), machine.isa.lanes(FLOAT32)
        if prod(layer.geometry.kernel) > 1 or any(layer.geometry.padding):
            return "the window is not a single position without padding"
        if not _is_flat(layer):
            return "planes are not flat: their rows are longer than what they hold"
        vectors = -(-prod(layer.y.shape[2:]) // lanes)
        staging, found = staging_work(layer.x, layer.geometry, machine) + machine.beyond(layer.y, layer.residual), []
        for filters, width in sorted({(filters, min(width, vectors)) for filters, width in TILES[lanes] if filters <= fkw.shape[0]}):
            groups, tiles = -(-fkw.shape[0] // filters), layer.x.shape[0] * -(-vectors // width)
            schedule = PointwiseSchedule(filters, width, sparse_tile.groups_of_item(groups, fkw.weight.size * width / groups, tiles))
            found.append(Candidate(schedule, _tile_work(layer, fkw, schedule, machine) * tiles + staging))
        return found

    def emit(self, layer: Conv2d, schedule: PointwiseSchedule, b: ProgramBuilder) -> None:
        fkw, lanes = sparse_tile.fkw_of(layer), b.isa.lanes(FLOAT32)
        staged, tables = stage(b, layer.x, layer.geometry), shared_tables(fkw, schedule.filters)
        size, positions = schedule.vectors * lanes, -(-staged.positions // lanes) * lanes
        tiles, blocks = -(-positions // size), -(-tables.groups // schedule.block)
        tile_step, block_step = (1, tiles) if staged.image * FLOAT32.bytes <= sparse_tile.L2_BYTES else (blocks, 1)
        arrays = {
            "channels_at": tables.channels * np.int32(staged.plane),
            "weight": tables.weight,
            "lists": tables.lists,
            "filters": tables.filters,
            "bias": np.zeros(fkw.shape[0], np.float32) if layer.bias is None else layer.bias,
        }
        args: dict[str, View | int | float] = {
            "x": staged.view,
            "x_image": staged.image,
            **{name: b.constant(f"{layer.name}.{name}", values) for name, values in arrays.items()},
            "groups": tables.groups,
            "groups_per_item": schedule.block,
            "tiles": tiles,
            "tile_step": tile_step,
            "blocks": blocks,
            "block_step": block_step,
            "positions": positions,
            "stored": positions if has_whole_lines(layer.y) else staged.positions,
            "y": layer.y,
            **dict(zip(("y_image", "y_plane"), layer.y.strides, strict=False)),
        }
        if layer.residual is not None:
            args |= {"residual": layer.residual, **dict(zip(("r_image", "r_plane"), layer.residual.strides, strict=False))}
        outputs = layer.y.shape[0] * staged.positions
        kernel = ConvSparsePointwise(schedule.filters, size, Epilogue(layer.residual is not None, layer.activation))
        b.call(kernel, args, layer.y.shape[0] * tiles * blocks, macs=fkw.weight.size * outputs, dense_macs=prod(fkw.shape) * outputs)


FAMILY = PointwiseFamily()


def _is_flat(layer: Conv2d) -> bool:
    """Whether every plane is one run of positions."""
    views = [view for view in (layer.x, layer.y, layer.residual) if view is not None]
    return all(view.strides[2] == view.shape[3] or view.shape[2] == 1 for view in (views[1:] if is_staged(layer.geometry) else views))


def _tile_work(layer: Conv2d, fkw: FKW, schedule: PointwiseSchedule, machine: Machine) -> Work:
    """One tile of all filters of one image."""
    width, groups = schedule.vectors, -(-fkw.shape[0] // schedule.filters)
    users = users_of_channels(fkw, schedule.filters)
    entries = len(users)
    far = width if fkw.shape[1] * width * machine.isa.vector_bytes > machine.l1_bytes else 0
    multiplies = float(np.maximum(users * width, machine.fma_in_flight).sum())
    weights = users.sum() / (machine.isa.lanes(FLOAT32) if machine.isa.multiply_add(FLOAT32).by_lane else 1)
    listed = (Work(far=far, scalars=1, branches=1) + tap_loads(layer.x, layer.geometry, width)) * entries + Work(fma=multiplies, scalars=weights)
    return listed + (Work(scalars=2, branches=1) * (2**schedule.filters - 1) + Work(stores=width, scalars=2) * schedule.filters) * groups


@dataclass(frozen=True)
class ConvSparsePointwise:
    """An item is one tile of ``size`` positions (whole vectors) of ``groups_per_item`` groups of ``filters`` filters, of one image."""

    filters: int
    size: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_conv_sparse_pointwise_{self.filters}x{self.size}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        tables = (Param("channels_at", "i32*"), Param("weight", "f32*"), Param("lists", "i32*"), Param("filters", "i32*"), Param("bias", "f32*"))
        numbers = ("x_image", "groups", "groups_per_item", "tiles", "tile_step", "blocks", "block_step", "positions", "stored", "y_image", "y_plane")
        residual = (Param("residual", "f32*"), Param("r_image"), Param("r_plane")) if self.epilogue.residual else ()
        return (Param("x", "f32*"), *tables, Param("y", "f32*", writes=True), *(Param(name) for name in numbers), *residual)

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        size, vectors = self.size, self.size // k.lanes
        sums = k.local(self.filters * size)
        with k.work() as number:
            image, _ = k.divide(number, k["tiles"] * k["blocks"])
            _, block = k.divide(k.divide(number, k["block_step"])[0], k["blocks"])
            _, tile = k.divide(k.divide(number, k["tile_step"])[0], k["tiles"])
            first = k.let(tile * size)
            start = k.let(tirx.Min(first, k["positions"] - size))
            x_at = k.let(image * k["x_image"] + start)
            first_group = k.let(block * k["groups_per_item"])
            with k.loop(first_group, k.let(tirx.Min(first_group + k["groups_per_item"], k["groups"]))) as group:
                filters = [k.let(k.load(k["filters"], group * self.filters + f)) for f in range(self.filters)]
                for f, filter in enumerate(filters):
                    bias = k.let(k.splat(k.load(k["bias"], filter), k.lanes))
                    for v in range(vectors):
                        k.store(sums, f * size + v * k.lanes, bias, k.lanes)
                for members in range(1, 1 << self.filters):
                    self._list(k, group, members, x_at, sums)
                for f, filter in enumerate(filters):
                    self._store(k, sums, f, filter, image, start, first)

    def _list(self, k: "KernelBuilder", group: "Expr", members: int, x_at: "Expr", sums: "Buffer") -> None:
        """Adds the channels that exactly these filters (a bit each) of the group keep."""
        users = [f for f in range(self.filters) if members >> f & 1]
        at = k.let((group * ((1 << self.filters) - 1) + (members - 1)) * 2)
        begin, weights_at, end = (k.let(k.load(k["lists"], at + field)) for field in (0, 1, 2))
        with k.loop(k.wide(0), k.wide(end - begin)) as entry:
            channel = k.pointer(k["x"], x_at + k.load(k["channels_at"], begin + entry))
            weights = sparse_tile.broadcast_weights(k, k["weight"], weights_at + entry * len(users), len(users))
            for v in range(0, self.size, k.lanes):
                values = k.let(k.load(channel, v, k.lanes))
                for f, weight in zip(users, weights, strict=True):
                    place = f * self.size + v
                    k.store(sums, place, k.load(sums, place, k.lanes) + weight * values, k.lanes)

    def _store(self, k: "KernelBuilder", sums: "Buffer", f: int, filter: "Expr", image: "Expr", start: "Expr", first: "Expr") -> None:
        """One filter's tile through the epilogue."""
        from tvm import tirx

        size, apply = self.size, self.epilogue.apply
        y_at = k.let(image * k["y_image"] + filter * k["y_plane"] + start)
        r_at = k.let(image * k["r_image"] + filter * k["r_plane"] + start) if self.epilogue.residual else None

        def addend(place: "Expr", lanes: int) -> "Expr | None":
            return None if r_at is None else k.load(k["residual"], r_at + place, lanes)

        with k.when_else(tirx.And(start == first, start + size <= k["stored"])) as (then, otherwise):
            with then:
                for v in range(0, size, k.lanes):
                    k.store(k["y"], y_at + v, apply(k, k.load(sums, f * size + v, k.lanes), addend(v, k.lanes), k.lanes), k.lanes)
            with otherwise:
                held = k.local(size)
                for v in range(0, size, k.lanes):
                    k.store(held, v, k.load(sums, f * size + v, k.lanes), k.lanes)
                skipped = k.let(first - start)

                def store(i: "Expr", lanes: int) -> None:
                    place = skipped + i
                    k.store(k["y"], y_at + place, apply(k, k.load(held, place, lanes), addend(place, lanes), lanes), lanes)

                exact_run(k, k.let(math.smaller(k["stored"] - first, size)), store)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, weight, y = (np.asarray(args[name]) for name in ("x", "weight", "y"))
        channels_at, lists, filters, bias = (np.asarray(args[name]) for name in ("channels_at", "lists", "filters", "bias"))
        n = {key: int(value) for key, value in args.items() if not isinstance(value, np.ndarray)}
        sets = (1 << self.filters) - 1
        for item in range(begin, end):
            image, block = item // (n["tiles"] * n["blocks"]), item // n["block_step"] % n["blocks"]
            first = item // n["tile_step"] % n["tiles"] * self.size
            start = min(first, n["positions"] - self.size)
            for group in range(block * n["groups_per_item"], min((block + 1) * n["groups_per_item"], n["groups"])):
                channels = filters[group * self.filters : (group + 1) * self.filters]
                sums = np.repeat(bias[channels, None], self.size, axis=1)
                for members in range(1, sets + 1):
                    users = [f for f in range(self.filters) if members >> f & 1]
                    (at, weights_at), (end_at, _) = lists[(group * sets + members - 1) * 2 :][:4].reshape(2, 2)
                    inputs = x[image * n["x_image"] + start + channels_at[at:end_at, None] + np.arange(self.size)]
                    sums[users] += weight[weights_at : weights_at + (end_at - at) * len(users)].reshape(-1, len(users)).T @ inputs
                stop = min(start + self.size, n["stored"])
                for values, channel in zip(sums[:, first - start : stop - start], channels.tolist(), strict=True):
                    planes = {name: image * n[f"{name}_image"] + channel * n[f"{name}_plane"] for name in ("y", "r") if f"{name}_image" in n}
                    residual = np.asarray(args["residual"])[planes["r"] + first : planes["r"] + stop] if self.epilogue.residual else None
                    y[planes["y"] + first : planes["y"] + stop] = self.epilogue.reference(values, residual)
