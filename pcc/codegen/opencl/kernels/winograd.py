"""Winograd's minimal filtering for dense 3x3 convolutions of stride 1: F(2x2) and F(4x4) (Lavin and Gray, 2016).

Three kernels: inputs are transformed, a product for each of the (m + 2)^2 places sums over channels, its results are
transformed back and finished. Transformed values lie as (places, channels, tiles); four neighbouring tiles of a row are
a vector. F(4x4) is computed in fp32 alone: in fp16 it loses 0.6 to 1.5 % of the result (docs/gpu.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels import linear_map
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.winograd_forms import FORMS, Form
from pcc.codegen.opencl.kernel import LANES, types_symbol
from pcc.codegen.opencl.kernels.reference import store_reference
from pcc.codegen.opencl.kernels.tile import Tile, columns_of, load_columns, number_of, output_params, store_tile
from pcc.codegen.range import Range
from pcc.dtype import FLOAT32, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr


@dataclass(frozen=True)
class _Winograd:
    """What the kernels of a form have in common."""

    outputs: int
    """m of F(m x m)."""
    dtype: DType
    """Of activations, and of transformed values in memory."""
    arithmetic: DType

    def __post_init__(self) -> None:
        if self.outputs > 2 and self.arithmetic != FLOAT32:
            raise ValueError(
                f"{self.form} computes in fp32 alone: in {self.arithmetic} it loses up to 1.5 % of the result"
            )

    @property
    def form(self) -> Form:
        return FORMS[self.outputs]

    @property
    def places(self) -> int:
        return self.form.inputs**2

    @property
    def _held(self) -> str:
        return f"{self.dtype.short}*"

    @property
    def _symbol(self) -> str:
        return f"f{self.outputs}x{self.outputs}_{types_symbol(self.dtype, self.arithmetic)}"


def _both_ways(matrix: linear_map.Matrix, tiles: np.ndarray) -> np.ndarray:
    """``M t M'`` of tiles (..., n, n)."""
    m = np.array(matrix, np.float64).astype(np.float32)
    return m @ tiles @ m.T


@dataclass(frozen=True)
class WinogradInput(_Winograd):
    """``v[p, c, t] = B' d B``. An item is ``tiles`` neighbouring tiles of a channel. ``x_offset`` is the first number
    of the first map; below it is a row of zeros."""

    padding: tuple[int, int]
    """(top, left)."""
    tiles: int = LANES
    """4, or 1 where a work-item has too few registers for so many values."""

    @property
    def name(self) -> str:
        return f"pcc_winograd_input_{self._symbol}_p{self.padding[0]}x{self.padding[1]}t{self.tiles}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = ("x_offset", "x_plane", "x_pitch", "height", "channels", "tile_columns", "tile_rows")
        return Param("x", self._held), Param("v", self._held, writes=True), *(Param(name) for name in numbers)

    def body(self, k: "DeviceKernelBuilder") -> None:
        (top, left), n, m = self.padding, self.form.inputs, self.outputs
        across, tile_row, channel = k.item(0), k.item(1), k.item(2)
        tile_column = k.let(across * self.tiles)
        k.end_unless(tile_column < k["tile_columns"])
        at = k.let(k["x_offset"] + channel * k["x_plane"] + tile_column * m)
        columns = range(-left, self.tiles * m + 2 - left)
        starts = [k.let(at + k.least(tile_row * m + (row - top), k["height"]) * k["x_pitch"]) for row in range(n)]
        # Down, number by number, a vector of columns after the other; then across, where the numbers of four tiles are
        # a vector.
        matrix = self.form.input_matrix
        down: dict[int, list[Expr]] = {}
        for _, columns_together in groupby(columns, key=lambda column: column // LANES):
            together = list(columns_together)
            loaded = [load_columns(k, k["x"], start, together, pairs=False) for start in starts]
            for column in together:
                down[column] = linear_map.apply(k, matrix, [number_of(k, row[column]) for row in loaded], 1)
        # A block of its own: else compilers compute where all results go before they read anything, and spill.
        with k.when_all(tile_row < k["tile_rows"]):
            tiles = k.let(k["tile_columns"] * k["tile_rows"])
            v_at = k.let(channel * tiles + tile_row * k["tile_columns"] + tile_column)
            step = k.let(k["channels"] * tiles)
            store = k.store if self.tiles == 1 else k.store_vector
            for row in range(n):
                values = [
                    k.let(k.joined([down[column - left + m * tile][row] for tile in range(self.tiles)]))
                    for column in range(n)
                ]
                for column, value in enumerate(linear_map.apply(k, matrix, values, self.tiles)):
                    store(k["v"], v_at + (row * n + column) * step, value)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, m, (top, left) = self.form.inputs, self.outputs, self.padding
        x, v = np.asarray(args["x"]).astype(np.float32), np.asarray(args["v"])
        channels, columns, rows = (int(args[name]) for name in ("channels", "tile_columns", "tile_rows"))
        y = np.minimum(np.arange(rows)[:, None] * m + np.arange(n) - top, int(args["height"]))
        across = np.arange(columns)[:, None] * m + np.arange(n) - left
        index = y[:, None, :, None] * int(args["x_pitch"]) + across[None, :, None, :] + int(args["x_offset"])
        for channel in np.arange(channels):
            tiles = _both_ways(self.form.input_matrix, x[index + channel * int(args["x_plane"])])
            held = v[: self.places * channels * rows * columns].reshape(self.places, channels, -1)
            held[:, channel] = tiles.reshape(rows * columns, -1).T


@dataclass(frozen=True)
class WinogradProduct(_Winograd):
    """``m[p, f, t] = sum over c of u[p, f, c] v[p, c, t]``: a product for each place. An item is ``filters`` filters
    and ``vectors`` vectors of tiles; u lies as (places, filters / size, channels, size)."""

    filters: int
    vectors: int

    @property
    def unroll(self) -> int:
        """Channels that a step of the loop takes; those that are left over have a loop of their own. With many sums it
        takes few, or registers spill."""
        return 4 if self.filters * self.vectors <= 16 else 2

    @property
    def name(self) -> str:
        return f"pcc_winograd_product_{self._symbol}_f{self.filters}v{self.vectors}u{self.unroll}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = (Param("channels"), Param("groups"), Param("tile_vectors"))
        return Param("v", self._held), Param("u", self._held), Param("m", self._held, writes=True), *numbers

    def body(self, k: "DeviceKernelBuilder") -> None:
        first, group, place = k.let(k.item(0) * self.vectors), k.item(1), k.item(2)
        k.end_unless(k.both(first < k["tile_vectors"], group < k["groups"]))
        row = k.let(k["tile_vectors"] * LANES)
        v_at = k.variable(k.let(place * k["channels"] * row + first * LANES))
        u_at = k.variable(k.let((place * k["groups"] + group) * k["channels"] * self.filters))
        sums = [[k.variable(k.splat(0.0)) for _ in range(self.vectors)] for _ in range(self.filters)]
        steps, rest = k.divide(k["channels"], self.unroll)
        for count, channels in ((steps, self.unroll), (rest, 1)):
            with k.loop(count):
                inputs_at, weights_at = k.let(v_at.value), k.let(u_at.value)
                for channel in range(channels):
                    u = self._vectors(k, "u", weights_at + channel * self.filters, self.filters // LANES)
                    weights = [k.lane(vector, lane) for vector in u for lane in range(LANES)]
                    inputs = self._vectors(k, "v", inputs_at + channel * row, self.vectors)
                    for f, weight in enumerate(weights):
                        for v, value in enumerate(inputs):
                            sums[f][v].value = k.mad(value, k.splat(weight), sums[f][v].value)
                v_at.value = inputs_at + channels * row
                u_at.value = weights_at + channels * self.filters
        for f in range(self.filters):
            m_at = k.let(((place * k["groups"] + group) * self.filters + f) * row + first * LANES)
            for v in range(self.vectors):
                with k.when_all(*([first + v < k["tile_vectors"]] if v else [])):
                    k.store_vector(k["m"], m_at + v * LANES, sums[f][v].value)

    def _vectors(self, k: "DeviceKernelBuilder", name: str, at: "Expr", count: int) -> "list[Expr]":
        """Neighbouring vectors. Pairs of weights are aligned; those of tiles may not be."""
        if name == "u" and count == 2:
            return list(k.load_pair(k[name], at))
        return [k.load_vector(k[name], at + v * LANES) for v in range(count)]

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        channels, groups, tiles = int(args["channels"]), int(args["groups"]), LANES * int(args["tile_vectors"])
        v = np.asarray(args["v"])[: self.places * channels * tiles].reshape(self.places, channels, tiles)
        u = np.asarray(args["u"]).reshape(self.places, groups, channels, self.filters).astype(np.float32)
        m = np.einsum("pgcf,pct->pgft", u, v.astype(np.float32))
        held = np.asarray(args["m"])
        held[: m.size] = m.ravel().astype(held.dtype)


@dataclass(frozen=True)
class WinogradOutput(_Winograd):
    """``y = activation(A' m A + bias + residual)``. An item is ``tiles`` neighbouring tiles of a filter."""

    epilogue: Epilogue
    row_multiple: int
    """As `pcc.codegen.opencl.kernels.conv_direct.ConvDirect` has it."""
    tiles: int = LANES
    """4, or for F(4x4) 1."""

    @property
    def name(self) -> str:
        return f"pcc_winograd_output_{self._symbol}_{self.epilogue.symbol}_t{self.tiles}_w{self.row_multiple}"

    @property
    def params(self) -> tuple[Param, ...]:
        numbers = (Param("places_of_filters"), Param("tile_columns"), Param("tile_rows"))
        return Param("m", self._held), *numbers, *output_params(self.dtype, self.epilogue)

    def body(self, k: "DeviceKernelBuilder") -> None:
        n, outputs = self.form.inputs, self.outputs
        across, tile_row, f = k.item(0), k.item(1), k.item(2)
        tile_column = k.let(across * self.tiles)
        x, y = k.let(tile_column * outputs), k.let(tile_row * outputs)
        k.end_unless(k.both(x < k["width"], y < k["height"]))
        tiles = k.let(k["tile_columns"] * k["tile_rows"])
        m_at = k.let(f * tiles + tile_row * k["tile_columns"] + tile_column)
        step = k.let(k["places_of_filters"] * tiles)
        bias = k.let(k.splat(k.load(k["bias"], f)))
        load = k.load if self.tiles == 1 else k.load_vector
        matrix = self.form.output_matrix
        down = [
            linear_map.apply(
                k, matrix, [load(k["m"], m_at + (row * n + column) * step) for row in range(n)], self.tiles
            )
            for column in range(n)
        ]
        rows = []
        for row in range(outputs):
            across_tiles = linear_map.apply(k, matrix, [down[column][row] for column in range(n)], self.tiles)
            found = {
                outputs * tile + column: (across_tiles[column], None if self.tiles == 1 else tile)
                for tile in range(self.tiles)
                for column in range(outputs)
            }
            vectors = range(outputs * self.tiles // LANES)
            rows.append([k.let(columns_of(k, found, LANES * v, 1) + bias) for v in vectors])
        tile = Tile(1, outputs * self.tiles // LANES, outputs)
        store_tile(k, tile, self.epilogue, [rows], (x, y, f), self.row_multiple)

    def reference(self, args: Mapping[str, Argument], range: Range) -> None:
        n, outputs = self.form.inputs, self.outputs
        columns, rows, filters = (int(args[name]) for name in ("tile_columns", "tile_rows", "places_of_filters"))
        m = np.asarray(args["m"])[: self.places * filters * rows * columns].astype(np.float32)
        tiles = (
            m.reshape(self.places, filters, rows, columns).transpose(1, 2, 3, 0).reshape(filters, rows, columns, n, n)
        )
        y = _both_ways(self.form.output_matrix, tiles).transpose(0, 1, 3, 2, 4)
        y = y.reshape(filters, rows * outputs, columns * outputs)[:, : int(args["height"]), : int(args["width"])]
        store_reference(args, self.epilogue, y[: len(np.asarray(args["filters"]))], 0)
