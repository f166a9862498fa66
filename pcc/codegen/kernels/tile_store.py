"""How the vectors of a tile, whose lanes are parts of a plane that lie apart, go to rows of memory.

The windows of a max pool become one value each, four vectors are transposed at a time, and each lane stores its piece
of a row.
"""

from functools import cache, reduce
from itertools import groupby, product
from typing import TYPE_CHECKING

from pcc.codegen.kernels import math
from pcc.codegen.kernels.epilogue import Epilogue
from pcc.codegen.kernels.transpose import QUARTER, split_lanes

if TYPE_CHECKING:
    from pcc.codegen.builder import Expr, KernelBuilder


def pooled(k: "KernelBuilder", lines: list["Expr"], columns: int, window: tuple[int, int]) -> list["Expr"]:
    """The maxima of the windows of a tile with so many columns, row by row; sizes of ``window`` divide those of the
    tile."""
    if window == (1, 1):
        return lines
    down, across = window
    starts = product(range(0, len(lines) // columns, down), range(0, columns, across))
    windows = [[lines[(r + u) * columns + q + v] for u, v in product(range(down), range(across))] for r, q in starts]
    return [reduce(lambda total, value: k.let(math.maximum(k, value, total)), window) for window in windows]


def store_lines(
    k: "KernelBuilder",
    lines: list["Expr"],
    shape: tuple[int, int],
    epilogue: Epilogue,
    parameter: "Expr | None",
    y_at: "Expr",
    r_at: "Expr",
) -> None:
    """Stores (rows, columns) of lines to rows of ``y`` from ``y_at`` on, lane by lane; with a residual, at ``r_at``,
    they go through the epilogue first."""
    for members, runs in pieces(*shape):
        vectors = [lines[member] for member in members]
        quarters = (
            split_lanes(k, vectors, k.lanes)
            if len(members) == QUARTER
            else [k.part(vectors[0], lane, 1) for lane in range(k.lanes)]
        )
        for (r, first, width, place), (lane, quarter) in product(runs, enumerate(quarters)):
            value = quarter if width == len(members) else k.part(quarter, place, width)
            if epilogue.residual:
                addend = k.load(k["residual"], r_at + r * k["r_row"] + k.load(k["r_at"], lane) + first, width)
                value = epilogue.apply(k, value, addend, width, parameter)
            k.store(k["y"], y_at + r * k["y_row"] + k.load(k["y_at"], lane) + first, value, width)


@cache
def pieces(rows: int, columns: int) -> list[tuple[tuple[int, ...], list[tuple[int, int, int, int]]]]:
    """How the ``rows`` x ``columns`` vectors of a tile go to rows of memory.

    Each piece is vectors (row-major places) that are transposed together, and the runs of neighbours among them: (row,
    column, width, first member). Four vectors make a piece: of a row where it has as many, else of all rows one after
    the other; the last four may overlap those before.
    """
    size = rows * columns
    if size < QUARTER:
        return [((i,), [(*divmod(i, columns), 1, 0)]) for i in range(size)]
    length = columns if columns >= QUARTER else size
    starts = [
        begin + min(first, length - QUARTER) for begin in range(0, size, length) for first in range(0, length, QUARTER)
    ]
    return [(tuple(range(start, start + QUARTER)), _runs(start, columns)) for start in starts]


def _runs(start: int, columns: int) -> list[tuple[int, int, int, int]]:
    """The runs of neighbours among the four vectors from ``start`` on, in widths that are one store."""
    runs = []
    for row, members in groupby(range(start, start + QUARTER), key=lambda place: place // columns):
        places = list(members)
        while places:
            width = 1 << (len(places).bit_length() - 1)
            runs.append((row, places[0] % columns, width, places[0] - start))
            places = places[width:]
    return runs
