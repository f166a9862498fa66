"""Sparse convolution whose taps come from a table: one loop over all connections, whatever their patterns.

Small maps have fewer tiles than a wave has lanes, so that lanes of a wave compute different filter groups. Where each
pattern has its own loop (`conv_direct`), such a wave runs the longest of its groups' loops, pattern by pattern; here
lanes with the same number of connections never wait. What it costs: nothing that two taps read is shared, and
loads are not aligned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.sparse_tables import gather_tables
from pcc.codegen.layers import Conv2d
from pcc.codegen.opencl.call import DeviceCall
from pcc.codegen.opencl.kernel import LANES, types_symbol
from pcc.codegen.opencl.kernels.conv_direct import (
    Weights,
    begin_sums,
    layer_numbers,
    listed_tables,
    reference_weights,
    stored_weights,
    stored_weights_of,
    sunk_symbol,
    taps_of,
)
from pcc.codegen.opencl.kernels.reference import plane_index, store_reference
from pcc.codegen.opencl.kernels.tile import Tile, output_params, row_multiple_of, store_tile
from pcc.codegen.range import Range, Sizes
from pcc.dtype import DType
from pcc.sparsity.fkw import FKW

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr


@dataclass(frozen=True)
class ConvGather:
    """As `pcc.codegen.opencl.kernels.conv_direct.ConvDirect`; ``taps_at`` (K, taps) is where each tap of a connection
    reads, from the first row of the window and the output's column; ``segments`` (groups + 1,)."""

    taps: int
    stride: tuple[int, int]
    tile: Tile
    epilogue: Epilogue
    dtype: DType
    arithmetic: DType
    row_multiple: int
    sinks_weights: bool

    @property
    def name(self) -> str:
        held = f"{types_symbol(self.dtype, self.arithmetic)}_w{self.row_multiple}{sunk_symbol(self.sinks_weights)}"
        stride = "x".join(map(str, self.stride))
        return f"pcc_conv_gather_{self.tile.symbol}_s{stride}_e{self.taps}_{self.epilogue.symbol}_{held}"

    @property
    def params(self) -> tuple[Param, ...]:
        held = f"{self.dtype.short}*"
        return (
            *(Param("x", held), Param("x_offset"), Param("x_pitch")),
            *(Param("weight", held), Param("taps_at", "i32*"), Param("segments", "i32*")),
            *output_params(self.dtype, self.epilogue),
            Param("groups"),
        )

    def body(self, k: "DeviceKernelBuilder") -> None:
        tile, (down, across) = self.tile, self.stride
        (x, y, group), sums = begin_sums(k, tile)
        x_at = k.let(k["x_offset"] + y * (down * k["x_pitch"]) + x * across)
        begin = k.word(k["segments"], group)
        count = k.let(k.word(k["segments"], group + 1) - begin)
        stored = stored_weights(self.taps, tile.filters)
        weight_at, tap_at = k.variable(k.let(begin * stored)), k.variable(k.let(begin * self.taps))
        with k.loop(count):
            weights = Weights(k, k.let(weight_at.value), stored, sink=self.sinks_weights)
            places = k.let(tap_at.value)
            at = (
                k.words(k["taps_at"], places)
                if self.taps == LANES
                else [k.word(k["taps_at"], places + tap) for tap in range(self.taps)]
            )
            for tap in range(self.taps):
                for row in range(tile.rows):
                    for v in range(tile.vectors):
                        here = k.let(x_at + at[tap] + row * down * k["x_pitch"] + v * LANES * across)
                        inputs = self._inputs(k, here)
                        for f in range(tile.filters):
                            total = sums[f][row][v]
                            total.value = k.mad(inputs, k.splat(weights[tap * tile.filters + f]), total.value)
            weight_at.value = weight_at.value + stored
            tap_at.value = tap_at.value + self.taps
        values = [[[total.value for total in row] for row in rows] for rows in sums]
        place = k.let(group * tile.filters)
        store_tile(k, tile, self.epilogue, values, (x, y, place), self.row_multiple)

    def _inputs(self, k: "DeviceKernelBuilder", at: "Expr") -> "Expr":
        across = self.stride[1]
        if across == 1:
            return k.load_vector(k["x"], at, aligned=False)
        return k.let(k.joined([k.load(k["x"], at + lane * across) for lane in range(LANES)]))

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        share = self.tile.filters
        x, taps_at = np.asarray(args["x"]).astype(np.float32), np.asarray(args["taps_at"]).reshape(-1, self.taps)
        weight = reference_weights(args, self.taps, share)
        segments, size = np.asarray(args["segments"]), (int(args["height"]), int(args["width"]))
        for group in np.arange(len(segments) - 1):
            sums = np.zeros((share, *size), np.float32)
            for at in np.arange(segments[group], segments[group + 1]):
                for tap, offset in enumerate(taps_at[at]):
                    start = int(args["x_offset"]) + int(offset)
                    index = plane_index(start, int(args["x_pitch"]), self.stride, size)
                    sums += weight[at, tap][:, None, None] * x[index]
            store_reference(args, self.epilogue, sums, int(group) * share)


def gather_call(
    layer: Conv2d, fkw: FKW, tile: Tile, arithmetic: DType, image: int, local_size: Sizes, sinks_weights: bool = False
) -> DeviceCall:
    """The call that computes an image of a layer. Filter groups of the weight are as large as the tile's."""
    taps = fkw.patterns.shape[1]
    tables = gather_tables(fkw, taps)
    pattern = np.repeat(np.arange(len(tables.segments) - 1) % len(fkw.patterns), np.diff(tables.segments))
    offsets = np.array(
        [
            [row * layer.x.strides[2] + column for row, column in found]
            for found in taps_of(fkw.patterns, layer.geometry)
        ]
    )
    arrays = {
        "weight": stored_weights_of(tables, fkw.share, layer.x.dtype),
        "taps_at": (tables.channels[:, None] * layer.x.strides[1] + offsets[pattern]).astype(np.int32),
        "segments": np.ascontiguousarray(tables.segments[:: len(fkw.patterns)]),
    }
    epilogue = Epilogue(layer.residual is not None, layer.activation)
    multiple = row_multiple_of(layer.y.shape[3], layer.y.dtype)
    kernel = ConvGather(taps, layer.geometry.stride, tile, epilogue, layer.x.dtype, arithmetic, multiple, sinks_weights)
    call = layer_numbers(layer, fkw, kernel, tile, arrays, image, local_size)
    padded = any(layer.geometry.padding)  # then taps lie beside the planes' first elements
    return call if padded else replace(call, listed=listed_tables(layer, fkw, "taps_at", "segments", 1))
