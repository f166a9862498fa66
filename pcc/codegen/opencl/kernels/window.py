"""Windows over a map, walked number by number; what of them lies outside of the map is left out."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pcc.codegen.layers import ConvGeometry

if TYPE_CHECKING:
    from pcc.codegen.opencl.builder import DeviceKernelBuilder, Expr

WINDOW_NUMBERS = ("rows", "columns", "down", "across", "row_step", "column_step", "top", "left")
"""Size of a window, its stride, its dilation, padding before the map."""


def window_numbers(g: ConvGeometry) -> dict[str, int]:
    """The values of `WINDOW_NUMBERS`."""
    return dict(zip(WINDOW_NUMBERS, (*g.window, *g.stride, *g.dilation, *g.padding[:2]), strict=True))


def window_begin(k: "DeviceKernelBuilder", row: "Expr", column: "Expr") -> "tuple[Expr, Expr]":
    """The (row, column) of the map at which an output's window begins."""
    return k.let(row * k["down"] - k["top"]), k.let(column * k["across"] - k["left"])


@contextmanager
def over_window(
    k: "DeviceKernelBuilder", first_row: "Expr", first_column: "Expr"
) -> "Generator[tuple[Expr, Expr, Expr, Expr]]":
    """The loop over a window's numbers inside the map: (row, column) in the window, then in the map."""
    with k.loop(k["rows"]) as row:
        at_row = k.let(first_row + row * k["row_step"])
        with k.when_all(at_row >= 0, at_row < k["height"]), k.loop(k["columns"]) as column:
            at_column = k.let(first_column + column * k["column_step"])
            with k.when_all(at_column >= 0, at_column < k["width"]):
                yield row, column, at_row, at_column


def reference_windows(n: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of all outputs' windows, (rows, columns, rows in the window, columns in it): where each number lies in its plane,
    and whether it lies inside the map."""
    rows = np.arange(n["out_height"])[:, None] * n["down"] - n["top"] + np.arange(n["rows"]) * n["row_step"]
    columns = np.arange(n["out_width"])[:, None] * n["across"] - n["left"] + np.arange(n["columns"]) * n["column_step"]
    inside = ((rows >= 0) & (rows < n["height"]))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns < n["width"]))[None, :, None, :]
    return rows[:, None, :, None] * n["x_pitch"] + columns[None, :, None, :], inside
