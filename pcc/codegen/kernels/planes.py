"""What pooling and resizing share: items that are some output rows of one plane, and where planes lie."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pcc.codegen.kernel import Param
from pcc.codegen.kernels import math
from pcc.codegen.program import View

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder


PLACES = tuple(
    Param(name)
    for name in ("channels", "height", "width", "x_image", "x_plane", "x_row", "y_image", "y_plane", "y_row")
)
"""How many channels there are, of what size, and where."""


def plane_strides(x: View, y: View) -> dict[str, int]:
    """The numbers ``x_image``, ``x_plane``, ``x_row``, ``y_image``, ``y_plane`` and ``y_row``."""
    return {
        f"{name}_{part}": view.strides[dim]
        for name, view in (("x", x), ("y", y))
        for dim, part in enumerate(("image", "plane", "row"))
    }


@contextmanager
def output_rows(k: "KernelBuilder") -> Generator[tuple["Expr", "Expr", "Expr"]]:
    """The loop over this call's output rows: start of the input plane, start of the output row, the row's number."""
    blocks = k.let((k["out_height"] + k["rows_per_item"] - 1) // k["rows_per_item"])
    with k.work() as item:
        plane, first = k.let(item // blocks), k.let(item % blocks * k["rows_per_item"])
        image, channel = k.let(plane // k["channels"]), k.let(plane % k["channels"])
        x_at, y_at = (
            k.let(image * k["x_image"] + channel * k["x_plane"]),
            k.let(image * k["y_image"] + channel * k["y_plane"]),
        )
        with k.loop(first, math.smaller(first + k["rows_per_item"], k["out_height"])) as row:
            yield x_at, k.let(y_at + row * k["y_row"]), row
