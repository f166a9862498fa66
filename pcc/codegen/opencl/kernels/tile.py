"""Tiles of direct convolutions: which neighbours a tile reads in a row, the sums of a tile, and how they are stored."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from pcc.codegen.kernel import Param
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.opencl.kernel import LANES
from pcc.codegen.opencl.kernels.epilogue import apply, parameter_at
from pcc.dtype import FLOAT16, DType

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import Buffer, DeviceKernelBuilder, Expr


@dataclass(frozen=True)
class Tile:
    """What a work-item computes: ``filters`` filters, ``vectors`` vectors of four neighbours in each of ``rows``
    rows."""

    filters: int
    vectors: int
    rows: int

    @property
    def symbol(self) -> str:
        return f"f{self.filters}v{self.vectors}r{self.rows}"

    @property
    def columns(self) -> int:
        return LANES * self.vectors

    @property
    def outputs(self) -> int:
        return self.filters * self.columns * self.rows

    def items(self, filters: int, height: int, width: int) -> tuple[int, int, int]:
        """Work-items that cover so many filters of a map."""
        return -(-width // self.columns), -(-height // self.rows), -(-filters // self.filters)


def output_params(dtype: DType, epilogue: Epilogue) -> tuple[Param, ...]:
    """Where a tile's outputs go, and what is added to them. ``filters`` is each place's plane of outputs."""
    residual = (Param("residual", f"{dtype.short}*"), Param("residual_offset"), Param("residual_plane"))
    return (
        *epilogue.params,
        Param("filters", "i32*"),
        Param("y", f"{dtype.short}*", writes=True),
        *(Param(name) for name in ("y_offset", "y_plane", "y_pitch", "height", "width")),
        *((*residual, Param("residual_pitch")) if epilogue.residual else ()),
    )


def load_columns(
    k: "DeviceKernelBuilder", tensor: "Buffer", row_at: "Expr", columns: Iterable[int], *, pairs: bool
) -> "dict[int, tuple[Expr, int | None]]":
    """Some columns of a row: each is a lane of a vector, or a number where its vector holds no other column that is
    needed. ``pairs``: the row is aligned to eight numbers, so that two vectors may be one load."""
    needed: dict[int, set[int]] = {}
    for column in columns:
        needed.setdefault(column // LANES, set()).add(column)
    loaded: dict[int, Expr] = {}
    whole = sorted(vector for vector, found in needed.items() if len(found) > 1)
    for vector in whole:
        if LANES * vector in loaded:
            continue
        if pairs and vector % 2 == 0 and vector + 1 in whole:
            low, high = k.load_pair(tensor, row_at + LANES * vector)
            loaded[LANES * vector], loaded[LANES * vector + LANES] = low, high
        else:
            loaded[LANES * vector] = k.load_vector(tensor, row_at + LANES * vector)
    result: dict[int, tuple[Expr, int | None]] = {}
    for vector, found in needed.items():
        for column in found:
            if len(found) > 1:
                result[column] = (loaded[LANES * vector], column % LANES)
            else:
                result[column] = (k.load(tensor, row_at + column), None)
    return result


def number_of(k: "DeviceKernelBuilder", column: "tuple[Expr, int | None]") -> "Expr":
    """A column that `load_columns` found, as a number."""
    held, lane = column
    return held if lane is None else k.lane(held, lane)


def columns_of(k: "DeviceKernelBuilder", found: "dict[int, tuple[Expr, int | None]]", first: int, step: int) -> "Expr":
    """A vector of four columns, ``step`` apart."""
    parts = [found[first + step * lane] for lane in range(LANES)]
    vector = parts[0][0]
    if step == 1 and all(part[0] is vector and part[1] == lane for lane, part in enumerate(parts)):
        return vector
    return k.joined([number_of(k, part) for part in parts])


def store_tile(
    k: "DeviceKernelBuilder",
    tile: Tile,
    epilogue: Epilogue,
    sums: list[list[list["Expr"]]],
    place: tuple["Expr", "Expr", "Expr"],
    row_multiple: int,
) -> None:
    """Stores sums (filter, row, vector) of the tile at (first column, first row, first filter's place); those outside
    of the map are left out. ``row_multiple`` is `row_multiple_of` the map: where it is 1, the rest of a row's last
    vector becomes zero."""
    x, y, filter_place = place
    left = k.let(k["width"] - x)
    planes = (
        k.words(k["filters"], filter_place)
        if tile.filters == LANES
        else [k.word(k["filters"], filter_place + f) for f in range(tile.filters)]
    )
    tensors = ("y", *(("residual",) if epilogue.residual else ()))
    first = {name: k.let(k[f"{name}_offset"] + y * k[f"{name}_pitch"] + x) for name in tensors}
    starts = [{name: k.let(first[name] + plane * k[f"{name}_plane"]) for name in tensors} for plane in planes]
    of_filters = [parameter_at(k, epilogue, filter_place + f) for f in range(tile.filters)]
    parameters = [None if of_filter is None else k.let(k.splat(of_filter)) for of_filter in of_filters]
    together = 2 if row_multiple == 2 * LANES and tile.vectors % 2 == 0 else 1
    for row, v in product(range(tile.rows), range(0, tile.vectors, together)):
        column = LANES * v
        with k.when_all(*([y + row < k["height"]] if row else []), *([left > column] if v else [])):
            beside = {name: k.let(row * k[f"{name}_pitch"] + column) for name in tensors}
            for f in range(tile.filters):
                at = {name: starts[f][name] + beside[name] for name in tensors}
                added = _residual(k, at["residual"], together) if epilogue.residual else [None] * together
                values = [apply(k, epilogue, sums[f][row][v + i], added[i], parameters[f]) for i in range(together)]
                if together == 2:
                    k.store_pair(k["y"], at["y"], *values)
                else:
                    value = k.first_lanes(values[0], left - column) if row_multiple == 1 else values[0]
                    k.store_vector(k["y"], at["y"], value)


def _residual(k: "DeviceKernelBuilder", at: "Expr", vectors: int) -> "list[Expr]":
    return list(k.load_pair(k["residual"], at)) if vectors == 2 else [k.load_vector(k["residual"], at)]


def row_multiple_of(width: int, dtype: DType) -> int:
    """Of what the rows of an output are multiples, as kernels tell them apart: whole vectors, one or two of them in a
    store of 16 bytes, or 1 for rows that end anywhere."""
    sizes = (2 * LANES, LANES) if dtype == FLOAT16 else (LANES,)
    return next((size for size in sizes if width % size == 0), 1)
