"""Sparse convolution, input-stationary: each input is loaded once for all the filters of a block that use it.

The accumulators of a block of filters over one tile of positions live in L1. For each (input channel, pattern) that some filter of the block keeps (a
*segment*), the E tap vectors are loaded into registers once; then every such filter takes its accumulators from L1, adds E weighted taps, and puts
them back. Loads of inputs, unaligned and therefore dear, are shared among filters that have nothing else in common: PatDNN's filter-level load
redundancy elimination without asking filters for a common structure. Inside a run of channels segments are ordered by their number of filters, so
that the inner loop's trip count repeats and branches are predicted.
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
class ConvSparseScatter:
    """An item is one tile of ``size`` positions (whole vectors) of one block of at most ``filters`` filters, of one image."""

    taps: int
    size: int
    filters: int
    epilogue: Epilogue

    @property
    def name(self) -> str:
        return f"pcc_conv_sparse_scatter_e{self.taps}p{self.size}f{self.filters}_{self.epilogue.symbol}"

    @property
    def params(self) -> tuple[Param, ...]:
        tables = (Param("blocks_at", "i32*"), Param("segments", "i32*"), Param("slots", "i32*"))
        return (*tile.INPUTS, *tables, *tile.POSITIONS, *tile.output_params(self.epilogue))

    def body(self, k: "KernelBuilder") -> None:
        size = self.size
        sums, origin = tile.aligned_local(k, self.filters * size)
        with k.work() as number:
            item = tile.decode(k, number, size)
            first_filter, first_segment, end_filter, end_segment = (k.let(k.load(k["blocks_at"], item.block * 2 + field)) for field in range(4))
            with k.loop(0, end_filter - first_filter) as slot:
                bias = k.let(k.splat(k.load(k["bias"], k.load(k["channels"], first_filter + slot)), k.lanes))
                for v in range(0, size, k.lanes):
                    k.store(sums, origin + slot * size + v, bias, k.lanes)
            x_at = k.let(item.image * k["x_image"] + item.start)
            with k.loop(first_segment, end_segment) as segment:
                self._segment(k, segment, x_at, sums, origin)
            with k.loop(0, end_filter - first_filter) as slot:
                channel, at = k.let(k.load(k["channels"], first_filter + slot)), k.let(origin + slot * size)
                with k.when_else(item.whole) as (then, otherwise):
                    with then:
                        tile.store_whole(k, self.epilogue, item, [k.load(sums, at + v, k.lanes) for v in range(0, size, k.lanes)], channel)
                    with otherwise:
                        tile.store_rows(k, self.epilogue, item, sums, at, size, channel)

    def _segment(self, k: "KernelBuilder", segment: "Expr", x_at: "Expr", sums: "Buffer", origin: "Expr") -> None:
        """Adds one (channel, pattern) to the accumulators of the filters that use it."""
        vectors = range(0, self.size, k.lanes)
        channel_at, pattern, begin, end = (k.let(k.load(k["segments"], segment * 3 + field)) for field in (0, 1, 2, 5))
        inputs = []
        for e in range(self.taps):
            tap_at = k.let(x_at + channel_at + k.load(k["taps"], pattern + e))
            inputs.append([k.let(k.load(k["x"], tap_at + v, k.lanes)) for v in vectors])
        with k.loop(k.wide(begin), k.wide(end)) as kernel:
            at = k.let(k.wide(origin + k.load(k["slots"], kernel)))
            weights = tile.broadcast_weights(k, k["weight"], kernel * self.taps, self.taps)
            values = [k.load(sums, at + v, k.lanes) for v in vectors]
            for e in range(self.taps):
                values = [k.let(value + weights[e] * inputs[e][i]) for i, value in enumerate(values)]
            for value, v in zip(values, vectors, strict=True):
                k.store(sums, at + v, value, k.lanes)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        taps, weight, slots = (np.asarray(args[name]) for name in ("taps", "weight", "slots"))
        edges, segments, channels = (np.asarray(args[name]) for name in ("blocks_at", "segments", "channels"))
        for item in tile.reference_items(args, begin, end, self.size):
            first_filter, first_segment, end_filter, end_segment = edges[item.block * 2 : item.block * 2 + 4]
            outputs = channels[first_filter:end_filter]
            sums = np.repeat(np.asarray(args["bias"])[outputs, None], self.size, axis=1)
            for segment in range(first_segment, end_segment):
                channel_at, pattern, first, _, _, last = segments[segment * 3 : segment * 3 + 6]
                inputs = np.stack([item.x[channel_at + tap :][: self.size] for tap in taps[pattern : pattern + self.taps]])
                sums[slots[first:last] // self.size] += weight[first * self.taps : last * self.taps].reshape(-1, self.taps) @ inputs
            for values, channel in zip(sums, outputs, strict=True):
                tile.reference_store(args, self.epilogue, item, values, int(channel))
