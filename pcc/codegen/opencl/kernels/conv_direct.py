"""Direct convolution over the connections that are kept: patterns are compiled in, a loop each.

A work-item keeps the sums of a `Tile` and goes through the connections of its filters, sorted by pattern; a row that
several taps of a pattern read is loaded once. One connection of all taps for each channel is the dense convolution, a
window of one tap is the (sparse) 1x1 convolution, filters that share their connections in groups of four use one load
for four of them. (PatDNN, Niu et al., ASPLOS 2020; sharing is what makes it pay on a GPU: docs/gpu.md.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.sparse_tables import GatherTables, gather_tables
from pcc.codegen.layers import Conv2d, ConvGeometry
from pcc.codegen.opencl.call import DeviceCall, Listed, places_of
from pcc.codegen.opencl.kernel import LANES, DeviceKernel, types_symbol
from pcc.codegen.opencl.kernels.reference import plane_index, store_reference
from pcc.codegen.opencl.kernels.tile import Tile, columns_of, load_columns, output_params, row_multiple_of, store_tile
from pcc.codegen.range import Range, Sizes
from pcc.dtype import DType
from pcc.sparsity.fkw import FKW

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import Accumulator, DeviceKernelBuilder, Expr

Taps = tuple[tuple[int, int], ...]
"""(row, column) of each tap of a pattern: rows from the first that the window reads, columns from the output's own (of
stride 1), so that those in the padding are negative."""


@dataclass(frozen=True)
class ConvDirect:
    """``y[filters[p]] = activation(bias[p] + sum of weight * x + residual)`` for places p of filters.

    ``x_offset`` is the element of the first row that the window reads, and of the first column of the map (channel 0);
    it, pitches and planes are multiples of eight. Around the map there are as many zeros as the window reads.
    ``connections`` is where the plane of each connection begins, by filter group and pattern; ``heads`` (``groups``, a
    multiple of four) where a group's begin, then how many there are of each pattern. (Counts are read, four at once,
    when the loops before them have ended: known at the begin, all would take registers throughout.)
    """

    patterns: tuple[Taps, ...]
    stride: tuple[int, int]
    tile: Tile
    epilogue: Epilogue
    dtype: DType
    """Of x, weight, y and residual."""
    arithmetic: DType
    row_multiple: int
    """Of what the rows of the output are multiples (`row_multiple_of`)."""
    sinks_weights: bool
    """Whether a turn loads weights where they are used, else where it begins."""

    @property
    def name(self) -> str:
        taps = f"p{len(self.patterns)}e{self._taps}_{crc32(repr(self.patterns).encode()):08x}"
        held = f"{types_symbol(self.dtype, self.arithmetic)}_w{self.row_multiple}{sunk_symbol(self.sinks_weights)}"
        stride = "x".join(map(str, self.stride))
        return f"pcc_conv_direct_{self.tile.symbol}_s{stride}_{taps}_{self.epilogue.symbol}_{held}"

    @property
    def params(self) -> tuple[Param, ...]:
        held = f"{self.dtype.short}*"
        return (
            *(Param("x", held), Param("x_offset"), Param("x_pitch")),
            *(Param("weight", held), Param("connections", "i32*"), Param("heads", "i32*")),
            *output_params(self.dtype, self.epilogue),
            Param("groups"),
        )

    @property
    def _taps(self) -> int:
        return len(self.patterns[0])

    @property
    def _weights(self) -> int:
        """Numbers that are stored for a connection."""
        return stored_weights(self._taps, self.tile.filters)

    def body(self, k: "DeviceKernelBuilder") -> None:
        tile = self.tile
        (x, y, group), sums = begin_sums(k, tile)
        x_at = k.let(k["x_offset"] + y * (self.stride[0] * k["x_pitch"]) + x * self.stride[1])
        head = k.let(group * head_size(len(self.patterns)))
        begin, *counts = k.words(k["heads"], head)
        for place, pattern in enumerate(self.patterns):
            if not counts:
                counts = k.words(k["heads"], head + (place + _BEFORE_COUNTS))
            end = k.let(begin + counts.pop(0))
            with k.loop(end, begin) as connection:
                here = k.let(x_at + k["connections"][connection])
                self._connection(k, pattern, here, k.let(connection * self._weights), sums)
            begin = end
        values = [[[total.value for total in row] for row in rows] for rows in sums]
        place = k.let(group * tile.filters)
        store_tile(k, tile, self.epilogue, values, (x, y, place), self.row_multiple)

    def _connection(self, k: "DeviceKernelBuilder", pattern: Taps, base: "Expr", weight_at: "Expr", sums: Any) -> None:
        """Adds one connection of a pattern, whose inputs and weights begin at these elements."""
        tile, (down, across) = self.tile, self.stride
        weights = Weights(k, weight_at, self._weights, sink=self.sinks_weights)
        uses: dict[int, list[tuple[int, int, int]]] = {}
        for tap, (tap_row, tap_column) in enumerate(pattern):
            for row in range(tile.rows):
                uses.setdefault(row * down + tap_row, []).append((row, tap, tap_column))
        aligned = tile.columns * across % 8 == 0
        for row_read, users in sorted(uses.items()):
            columns = {column + across * place for _, _, column in users for place in range(tile.columns)}
            row_at = k.let(base + row_read * k["x_pitch"])
            loaded = load_columns(k, k["x"], row_at, sorted(columns), pairs=aligned)
            for row, tap, tap_column in users:
                for v in range(tile.vectors):
                    inputs = k.let(columns_of(k, loaded, tap_column + across * LANES * v, across))
                    for f in range(tile.filters):
                        total = sums[f][row][v]
                        total.value = k.mad(inputs, k.splat(weights[tap * tile.filters + f]), total.value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        share, x = self.tile.filters, np.asarray(args["x"]).astype(np.float32)
        weight = reference_weights(args, self._taps, share)
        connections = np.asarray(args["connections"])
        heads = np.asarray(args["heads"]).reshape(-1, head_size(len(self.patterns)))
        height, width = int(args["height"]), int(args["width"])
        for group, (at, *counts) in enumerate(heads):
            sums = np.zeros((share, height, width), np.float32)
            for pattern, count in zip(self.patterns, counts, strict=False):
                for connection in np.arange(at, at + count):
                    for tap, (row, column) in enumerate(pattern):
                        start = int(args["x_offset"]) + int(connections[connection])
                        start += row * int(args["x_pitch"]) + column
                        index = plane_index(start, int(args["x_pitch"]), self.stride, (height, width))
                        sums += weight[connection, tap][:, None, None] * x[index]
                at += count
            store_reference(args, self.epilogue, sums, group * share)


_BEFORE_COUNTS = 1
"""Numbers of a filter group's head before the counts."""


def head_size(patterns: int) -> int:
    """Numbers of a filter group's head."""
    return -(-(_BEFORE_COUNTS + patterns) // LANES) * LANES


def begin_sums(k: "DeviceKernelBuilder", tile: Tile) -> "tuple[tuple[Expr, Expr, Expr], list[list[list[Accumulator]]]]":
    """The item's (column, row, filter group), and its sums (filter, row, vector), which begin with the bias. Ends items
    outside of the map, and beyond the last group."""
    x, y, group = k.let(k.item(0) * tile.columns), k.let(k.item(1) * tile.rows), k.item(2)
    k.end_unless(k.both(k.both(x < k["width"], y < k["height"]), group < k["groups"]))
    place = k.let(group * tile.filters)
    if tile.filters == LANES:
        first = k.load_vector(k["bias"], place)
        biases = [k.lane(first, f) for f in range(LANES)]
    else:
        biases = [k.load(k["bias"], place + f) for f in range(tile.filters)]
    return (x, y, group), [
        [[k.variable(k.splat(bias)) for _ in range(tile.vectors)] for _ in range(tile.rows)] for bias in biases
    ]


class Weights:
    """The numbers that are stored for a connection, from ``at`` on. ``sink``: each load stands where the first of its
    numbers is used; else all are loaded now."""

    def __init__(self, k: "DeviceKernelBuilder", at: "Expr", count: int, *, sink: bool) -> None:
        self._k, self._at, self._count = k, at, count
        self._loaded: dict[int, Expr] = {}
        if not sink:
            for place in range(count):
                self[place]

    def __getitem__(self, place: int) -> "Expr":
        k = self._k
        if self._count < LANES:
            if place not in self._loaded:
                self._loaded[place] = k.load(k["weight"], self._at + place)
            return self._loaded[place]
        vector, lane = divmod(place, LANES)
        if vector not in self._loaded:
            self._load(vector)
        return k.lane(self._loaded[vector], lane)

    def _load(self, vector: int) -> None:
        k = self._k
        if self._count % (2 * LANES) == 0:
            first = vector // 2 * 2
            self._loaded[first], self._loaded[first + 1] = k.load_pair(k["weight"], self._at + LANES * first)
        else:
            self._loaded[vector] = k.load_vector(k["weight"], self._at + LANES * vector)


def sunk_symbol(sinks_weights: bool) -> str:
    """What the names of kernels say of their loads."""
    return "_sunk" if sinks_weights else ""


def stored_weights(taps: int, filters: int) -> int:
    """Numbers of a connection as they are stored: filled up to whole vectors, where they do not fit a part of one."""
    count = taps * filters
    return count if count < LANES else -(-count // LANES) * LANES


def taps_of(patterns: np.ndarray, geometry: ConvGeometry) -> tuple[Taps, ...]:
    """Patterns (P, E) of row-major positions in a window as `Taps`."""
    down, across = geometry.dilation
    _, columns = geometry.window
    left = geometry.padding[1]
    return tuple(
        tuple((int(tap) // columns * down, int(tap) % columns * across - left) for tap in pattern)
        for pattern in patterns
    )


def stored_weights_of(tables: GatherTables, share: int, dtype: DType) -> np.ndarray:
    """The weights of connections, (K, numbers that are stored)."""
    taps = tables.weight.shape[1]
    weight = tables.weight.reshape(len(tables.channels), taps * share)
    return np.pad(weight, ((0, 0), (0, stored_weights(taps, share) - taps * share))).astype(dtype.numpy)


def reference_weights(args: Mapping[str, Argument], taps: int, share: int) -> np.ndarray:
    """The weights of a call's connections, (K, taps, share), without what fills them up."""
    stored = np.asarray(args["weight"]).astype(np.float32).reshape(-1, stored_weights(taps, share))
    return stored[:, : taps * share].reshape(-1, taps, share)


def direct_call(
    layer: Conv2d, fkw: FKW, tile: Tile, arithmetic: DType, image: int, local_size: Sizes, sinks_weights: bool = False
) -> DeviceCall:
    """The call that computes an image of a layer, whose tensors lie as `pcc.codegen.opencl.planes` says. Filter groups
    of the weight are as large as the tile's."""
    tables = gather_tables(fkw, fkw.patterns.shape[1])
    weight = stored_weights_of(tables, fkw.share, layer.x.dtype)
    edges = tables.segments.astype(np.int64)
    patterns = len(fkw.patterns)
    first = edges[:-1:patterns]
    heads = np.column_stack([first, np.diff(edges).reshape(-1, patterns)])
    arrays = {
        "weight": weight,
        "connections": (tables.channels * layer.x.strides[1]).astype(np.int32),
        "heads": np.pad(heads, ((0, 0), (0, head_size(patterns) - heads.shape[1]))).astype(np.int32),
    }
    geometry, epilogue = layer.geometry, Epilogue(layer.residual is not None, layer.activation)
    taps, multiple = taps_of(fkw.patterns, geometry), row_multiple_of(layer.y.shape[3], layer.y.dtype)
    kernel = ConvDirect(taps, geometry.stride, tile, epilogue, layer.x.dtype, arithmetic, multiple, sinks_weights)
    call = layer_numbers(layer, fkw, kernel, tile, arrays, image, local_size)
    return replace(call, listed=listed_tables(layer, fkw, "connections", "heads", head_size(patterns)))


def listed_tables(layer: Conv2d, fkw: FKW, places: str, begins: str, begin_step: int) -> Listed | None:
    """What of a call's tables a processor's lists have, which are of 1x1 windows."""
    if prod(fkw.shape[2:]) > 1:
        return None
    return Listed(fkw, places, begins, begin_step, layer.x.strides[1])


def layer_numbers(
    layer: Conv2d,
    fkw: FKW,
    kernel: DeviceKernel,
    tile: Tile,
    arrays: Mapping[str, np.ndarray],
    image: int,
    local_size: Sizes,
) -> DeviceCall:
    """The call of a kernel that reads some arrays of a weight, for an image of a layer."""
    height, width = layer.y.shape[2:]
    bias = np.zeros(fkw.shape[0], np.float32) if layer.bias is None else layer.bias
    parameter = {} if layer.parameter is None else {"parameter": layer.parameter[fkw.reorder].astype(np.float32)}
    tensors = {"x": layer.x, "y": layer.y}
    x = places_of("x", layer.x, image=image)
    numbers = {
        "x_offset": x["x_offset"] - layer.geometry.padding[0] * x["x_pitch"],
        "x_pitch": x["x_pitch"],
        **places_of("y", layer.y, image=image),
        "height": height,
        "width": width,
        "groups": fkw.shape[0] // fkw.share,
    }
    if layer.residual is not None:
        tensors["residual"] = layer.residual
        numbers |= places_of("residual", layer.residual, image=image)
    return DeviceCall(
        kernel,
        tensors,
        {**arrays, "bias": bias[fkw.reorder], "filters": fkw.reorder, **parameter},
        numbers,
        Range.covering(tile.items(fkw.shape[0], height, width), local_size),
        int(np.count_nonzero(fkw.weight)) * height * width,
    )
