"""Nearest and bilinear resampling by tables of source rows and columns, with the arithmetic of PyTorch's
``interpolate`` in fp32.

Nearest copies columns through a table. Bilinear mixes two source rows into a row on the stack, whole vectors at a time,
and then two columns of that; output columns come in stretches whose sources fit the stack.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.kernel import Argument, Param
from pcc.codegen.kernels.planes import output_rows, plane_strides
from pcc.codegen.kernels.runs import exact_run
from pcc.codegen.layers import Resize2d
from pcc.codegen.program import ProgramBuilder
from pcc.errors import PccError

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder

STRETCH = 256
"""Source columns a stretch may look at."""
STRETCH_FIELDS = 4
"""Its begin, end, first source and number of sources."""
ITEM_OUTPUTS = 16384
PLACES = tuple(
    Param(name)
    for name in (
        "channels",
        "out_height",
        "out_width",
        "rows_per_item",
        "x_image",
        "x_plane",
        "x_row",
        "y_image",
        "y_plane",
        "y_row",
    )
)


def emit_resize(layer: Resize2d, b: ProgramBuilder) -> None:
    """``y = resize(x)``; `PccError` for a mode there is no kernel for."""
    if layer.mode not in ("nearest", "bilinear"):
        raise PccError(f"layer {layer.name}: no kernel resizes by '{layer.mode}': use nearest or bilinear")
    (batch, channels, _, _), (_, _, out_height, out_width) = layer.x.shape, layer.y.shape
    rows_per_item = max(1, min(out_height, ITEM_OUTPUTS // out_width))
    places = {
        "x": layer.x,
        "y": layer.y,
        "channels": channels,
        "out_height": out_height,
        "out_width": out_width,
        "rows_per_item": rows_per_item,
    }
    places |= plane_strides(layer.x, layer.y)
    work = batch * channels * -(-out_height // rows_per_item)
    if layer.mode == "nearest":
        rows, columns = (
            b.constant(f"{layer.name}.{name}", nearest_sources(layer, axis))
            for axis, name in enumerate(("rows", "columns"))
        )
        b.call(ResizeNearest(), {**places, "rows": rows, "columns": columns}, work=work)
        return
    (rows, row_weights), (columns, column_weights) = (bilinear_sources(layer, axis) for axis in (0, 1))
    stretches, columns = stretches_of(columns)
    tables = {
        "rows": rows,
        "row_weights": row_weights,
        "columns": columns,
        "column_weights": column_weights,
        "stretches": stretches,
    }
    constants = b.named_constants(layer.name, tables)
    b.call(ResizeBilinear(), {**places, **constants, "stretch_count": len(stretches)}, work=work)


def _scale(layer: Resize2d, axis: int) -> np.float32:
    """Source elements per output element."""
    inputs, outputs = layer.x.shape[2 + axis], layer.y.shape[2 + axis]
    if layer.mode == "bilinear" and layer.align_corners:
        return np.float32(inputs - 1) / np.float32(outputs - 1) if outputs > 1 else np.float32(0)
    return np.float32(1.0 / layer.scales[axis]) if layer.scales else np.float32(inputs) / np.float32(outputs)


def nearest_sources(layer: Resize2d, axis: int) -> np.ndarray:
    """int32 (outputs,): the source of each output row or column."""
    inputs, outputs = layer.x.shape[2 + axis], layer.y.shape[2 + axis]
    sources = np.floor(np.arange(outputs, dtype=np.float32) * _scale(layer, axis)).astype(np.int32)
    return np.minimum(sources, inputs - 1)


def bilinear_sources(layer: Resize2d, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 (outputs, 2): both sources; fp32 (outputs,): the weight of the second."""
    inputs, outputs = layer.x.shape[2 + axis], layer.y.shape[2 + axis]
    at, scale = np.arange(outputs, dtype=np.float32), _scale(layer, axis)
    fused = ((at + 0.5).astype(np.float64) * float(scale) - 0.5).astype(
        np.float32
    )  # rounded once, as a fused multiply-add
    position = at * scale if layer.align_corners else np.maximum(np.float32(0), fused)
    low = np.minimum(position.astype(np.int32), inputs - 1)
    weight = np.clip(position - low.astype(np.float32), 0, 1).astype(np.float32)
    return np.stack([low, np.minimum(low + 1, inputs - 1)], 1), weight


def stretches_of(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 (stretches, STRETCH_FIELDS): begin and end of each stretch of outputs, first source and number of sources;
    and int32 (2, outputs): the sources relative to the first of their stretch."""
    stretches, begin = [], 0
    relative = np.empty_like(columns)
    while begin < len(columns):
        first = columns[begin, 0]
        end = begin + int(np.searchsorted(columns[begin:, 1], first + STRETCH))
        stretches.append((begin, end, first, columns[end - 1, 1] - first + 1))
        relative[begin:end] = columns[begin:end] - first
        begin = end
    return np.array(stretches, np.int32), np.ascontiguousarray(relative.T)


def _reference_rows(args: Mapping[str, Argument], begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """`output_rows` on numbers."""
    n = {key: int(value) for key, value in args.items() if isinstance(value, int)}
    blocks = -(-n["out_height"] // n["rows_per_item"])
    for item in range(begin, end):
        image, channel = divmod(item // blocks, n["channels"])
        first = item % blocks * n["rows_per_item"]
        for oy in range(first, min(first + n["rows_per_item"], n["out_height"])):
            yield (
                image * n["x_image"] + channel * n["x_plane"],
                image * n["y_image"] + channel * n["y_plane"] + oy * n["y_row"],
                oy,
            )


def _plus(k: "KernelBuilder", scalar: "Expr", vector: "Expr", lanes: int) -> "Expr":
    return k.splat(scalar, lanes) + vector


@dataclass(frozen=True)
class ResizeNearest:
    """``y[oy, ox] = x[rows[oy], columns[ox]]``."""

    name = "pcc_resize_nearest"
    params = (
        Param("x", "f32*"),
        Param("y", "f32*", writes=True),
        Param("rows", "i32*"),
        Param("columns", "i32*"),
        *PLACES,
    )

    def body(self, k: "KernelBuilder") -> None:
        with output_rows(k) as (x_at, y_at, oy):
            source = k.let(x_at + k.load(k["rows"], oy) * k["x_row"])

            def emit(offset: "Expr", lanes: int) -> None:
                at = k.let(k.load(k["columns"], offset, lanes))
                k.store(k["y"], y_at + offset, k.load_at(k["x"], _plus(k, source, at, lanes), lanes), lanes)

            exact_run(k, k["out_width"], emit)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y, rows, columns = (np.asarray(args[name]) for name in ("x", "y", "rows", "columns"))
        width = int(args["out_width"])  # type: ignore[arg-type]
        for x_at, y_at, oy in _reference_rows(args, begin, end):
            y[y_at : y_at + width] = x[x_at + rows[oy] * int(args["x_row"]) + columns[:width]]  # type: ignore[arg-type]


@dataclass(frozen=True)
class ResizeBilinear:
    """Mixes two rows, then two columns."""

    name = "pcc_resize_bilinear"
    params = (
        Param("x", "f32*"),
        Param("y", "f32*", writes=True),
        Param("rows", "i32*"),
        Param("row_weights", "f32*"),
        Param("columns", "i32*"),
        Param("column_weights", "f32*"),
        Param("stretches", "i32*"),
        Param("stretch_count"),
        *PLACES,
    )

    def body(self, k: "KernelBuilder") -> None:
        lanes = k.lanes
        mixed = k.local(STRETCH + lanes)
        with output_rows(k) as (x_at, y_at, oy):
            low, high = (k.let(x_at + k.load(k["rows"], oy * 2 + which) * k["x_row"]) for which in (0, 1))
            weight = k.let(k.splat(k.load(k["row_weights"], oy), lanes))
            with k.loop(0, k["stretch_count"]) as stretch:
                begin, end, first, count = (
                    k.let(k.load(k["stretches"], stretch * STRETCH_FIELDS + field)) for field in range(STRETCH_FIELDS)
                )
                with k.loop(0, (count + (lanes - 1)) // lanes) as vector:
                    a, b = (k.let(k.load(k["x"], row + first + vector * lanes, lanes)) for row in (low, high))
                    k.store(mixed, vector * lanes, a + (b - a) * weight, lanes)

                def emit(offset: "Expr", width: int, begin: "Expr" = begin) -> None:
                    at = k.let(begin + offset)
                    a, b = (
                        k.let(k.load_at(mixed, k.load(k["columns"], at + which, width), width))
                        for which in (0, k["out_width"])
                    )
                    k.store(k["y"], y_at + at, a + (b - a) * k.load(k["column_weights"], at, width), width)

                exact_run(k, end - begin, emit)

    def reference(self, args: Mapping[str, Argument], begin: int, end: int) -> None:
        x, y, rows, row_weights, columns, weights = (
            np.asarray(args[n]) for n in ("x", "y", "rows", "row_weights", "columns", "column_weights")
        )
        width, x_row = int(args["out_width"]), int(args["x_row"])  # type: ignore[arg-type]
        stretches = np.asarray(args["stretches"])[: STRETCH_FIELDS * int(args["stretch_count"])].reshape(
            -1, STRETCH_FIELDS
        )  # type: ignore[arg-type]
        for x_at, y_at, oy in _reference_rows(args, begin, end):
            for start, stop, first, count in stretches:
                a, b = (x[x_at + rows[2 * oy + which] * x_row + first :][:count] for which in (0, 1))
                mixed = a + (b - a) * row_weights[oy]
                a, b = mixed[columns[start:stop]], mixed[columns[width + start : width + stop]]
                y[y_at + start : y_at + stop] = a + (b - a) * weights[start:stop]
