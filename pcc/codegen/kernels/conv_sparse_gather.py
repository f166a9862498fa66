"""Sparse convolution, output-stationary: a group of filters gathers the inputs it keeps into accumulators held in registers.

One filter group of FKW at a time: for each pattern the E tap offsets are read once, then a tight loop runs over the kernels of that pattern; each adds E
taps of its input channel to ``group`` x ``vectors`` accumulators. Nothing is stored before a tile is done, which suits kernels of few taps (1x1), where
taking accumulators from memory would cost more than the arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import sparse_tile as tile
from pcc.codegen.kernels.epilogue import Epilogue

if TYPE_CHECKING:
    from pcc.codegen.builder import Buffer, Expr, KernelBuilder


@dataclass(frozen=True)
class ConvSparseGather:
    """An item is one tile of ``size`` positions (whole vectors) of ``groups_per_item`` filter groups of ``group`` filters, of one image."""

    taps: int
    size: int
    group: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_conv_sparse_gather_e{self.taps}p{self.size}g{self.group}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        tables = (Param("segments", "i32*"), Param("channels_at", "i32*"), Param("groups"), Param("groups_per_item"), Param("patterns"))
        return (*tile.INPUTS, *tables, *tile.POSITIONS, *tile.output_params(self.epilogue))

    def body(self, k: "KernelBuilder") -> None:
        from tvm import tirx

        size, vectors = self.size, self.size // k.lanes
        sums, done = k.local(self.group * size), k.local(self.group * size)
        with k.work() as number:
            item = tile.decode(k, number, size)
            x_at = k.let(item.image * k["x_image"] + item.start)
            first_group = k.let(item.block * k["groups_per_item"])
            with k.loop(first_group, k.let(tirx.Min(first_group + k["groups_per_item"], k["groups"]))) as group:
                for f in range(self.group):
                    bias = k.let(k.splat(k.load(k["bias"], k.load(k["channels"], group * self.group + f)), k.lanes))
                    for v in range(vectors):
                        k.store(sums, f * size + v * k.lanes, bias, k.lanes)
                with k.loop(0, k["patterns"]) as pattern:
                    self._segment(k, k.let(group * k["patterns"] + pattern), pattern * self.taps, x_at, sums)
                with k.when_else(item.whole) as (then, otherwise):
                    with then:
                        for f in range(self.group):
                            values = [k.load(sums, f * size + v * k.lanes, k.lanes) for v in range(vectors)]
                            tile.store_whole(k, self.epilogue, item, values, k.let(k.load(k["channels"], group * self.group + f)))
                    with otherwise:
                        for v in range(self.group * vectors):
                            k.store(done, v * k.lanes, k.load(sums, v * k.lanes, k.lanes), k.lanes)
                        with k.loop(0, self.group) as f:
                            channel = k.let(k.load(k["channels"], group * self.group + f))
                            tile.store_rows(k, self.epilogue, item, done, f * size, size, channel)

    def _segment(self, k: "KernelBuilder", segment: "Expr", pattern: "Expr", x_at: "Expr", sums: "Buffer") -> None:
        """Adds the kernels of one pattern of one filter group."""
        vectors = self.size // k.lanes
        begin, end = k.let(k.load(k["segments"], segment)), k.let(k.load(k["segments"], segment + 1))
        taps_at = [k.let(k.wide(x_at + k.load(k["taps"], pattern + e))) for e in range(self.taps)]
        with k.loop(k.wide(begin), k.wide(end)) as kernel:
            channel_at = k.let(k.wide(k.load(k["channels_at"], kernel)))
            weights = tile.broadcast_weights(k, k["weight"], kernel * (self.taps * self.group), self.taps * self.group)
            for e in range(self.taps):
                tap_at = k.let(taps_at[e] + channel_at)
                inputs = (k.let(k.load(k["x"], tap_at + v * k.lanes, k.lanes)) for v in range(vectors))
                if k.isa.multiply_by_lane:  # weights are in few registers: inputs one at a time
                    for v, values in enumerate(inputs):
                        for f in range(self.group):
                            self._add(k, sums, f, v, weights[e * self.group + f] * values)
                else:
                    held = list(inputs)
                    for f in range(self.group):
                        for v, values in enumerate(held):
                            self._add(k, sums, f, v, weights[e * self.group + f] * values)

    def _add(self, k: "KernelBuilder", sums: "Buffer", f: int, v: int, value: "Expr") -> None:
        at = f * self.size + v * k.lanes
        k.store(sums, at, k.load(sums, at, k.lanes) + value, k.lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        segments, channels_at, weight = (np.asarray(args[name]) for name in ("segments", "channels_at", "weight"))
        patterns, per_item = int(args["patterns"]), int(args["groups_per_item"])
        taps = np.asarray(args["taps"])[: patterns * self.taps].reshape(patterns, self.taps)
        weight = weight[: weight.size // (self.taps * self.group) * self.taps * self.group].reshape(-1, self.taps, self.group)
        for item in tile.reference_items(args, begin, end, self.size):
            for group in range(item.block * per_item, min((item.block + 1) * per_item, int(args["groups"]))):
                channels = np.asarray(args["channels"])[group * self.group : (group + 1) * self.group]
                sums = np.repeat(np.asarray(args["bias"])[channels, None], self.size, axis=1)
                for pattern in range(patterns):
                    first, last = segments[group * patterns + pattern], segments[group * patterns + pattern + 1]
                    if first < last:
                        at = channels_at[first:last, None, None] + taps[pattern][:, None] + np.arange(self.size)
                        sums += np.einsum("keg,kep->gp", weight[first:last], item.x[at])
                for f, channel in enumerate(channels):
                    tile.reference_store(args, self.epilogue, item, sums[f], int(channel))
