"""Crossbar pruning: lines of memristor crossbars are removed (Yuan et al., 2019, arXiv 1908.11691; Ma et al., 2019,
arXiv 1908.10017).

A crossbar computes a product with a fixed matrix: inputs drive its rows, currents of its columns are the results. The
weight as that matrix, one for each convolution group, has a row for each (channel, row and column of the window) and a
column for each filter; it is cut into crossbars of ``size`` = (rows, columns), those at the edges smaller. A line is
one row, or one column, *of one crossbar*: without it the crossbar has a driver, or a converter, less, and one without
lines is not built. The paper leaves open whether its budget is spent in each crossbar or over the layer; here it is
over the layer, where it keeps most. States of the devices are `pcc.sparsity.conductance`, which composes with this.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pcc.errors import PccError
from pcc.sparsity.budget import budget, largest
from pcc.sparsity.places import pack_places, unpack_places
from pcc.sparsity.reorder import run_sums
from pcc.sparsity.structure import Packed
from pcc.sparsity.zeros import Zeros

LINES = ("rows", "columns")


@dataclass(frozen=True)
class Crossbar(Zeros):
    """One line in ``rate`` stays, counted over all crossbars of the layer; lines that are cut short by an edge count
    like others.

    The projection is exact. Rows and columns at once would not have an exact one, because they share cells, and are
    left to two stages of training.
    """

    name: ClassVar[str] = "crossbar"

    rate: float
    lines: str = "rows"
    size: tuple[int, int] = (128, 128)

    def __post_init__(self) -> None:
        budget(1, self.rate)  # refuses rates below 1
        if self.lines not in LINES:
            raise PccError(f"unknown lines '{self.lines}' of a crossbar: choose one of {', '.join(LINES)}")
        if min(self.size) < 1:
            raise PccError(f"a crossbar of {self.size[0]} x {self.size[1]} has no cells")

    def keep(self, scores: np.ndarray, groups: int = 1) -> np.ndarray:
        totals = self._totals(_matrix(scores, groups))
        return self._spread(largest(totals, budget(totals.size, self.rate)), scores.shape, groups)

    @classmethod
    def detect(cls, weight: np.ndarray, groups: int = 1) -> Self | str:
        """For crossbars of the usual size, the kind of line of which more are zero."""
        found = {lines: cls(1, lines)._occupied(weight, groups) for lines in LINES}
        if not weight.any():
            return "every weight is zero"
        lines = min(LINES, key=lambda candidate: found[candidate].mean())
        rows, columns = cls.size
        return (
            f"no line of a crossbar of {rows} x {columns} is all zero"
            if found[lines].all()
            else cls(found[lines].size / int(found[lines].sum()), lines)
        )

    def pack(self, weight: np.ndarray, groups: int = 1) -> Packed:
        """The lines that are not all zero, one after the other, and which they are."""
        kept = self._occupied(weight, groups)
        if int(kept.sum()) > budget(kept.size, self.rate):
            raise PccError(
                f"{int(kept.sum())} of {kept.size} crossbar {self.lines} are not zero: more than one in {self.rate:g}"
            )
        values = weight.ravel()[self._cells(kept, weight.shape, groups)].astype(np.float32) + np.float32(0)
        geometry = np.array([LINES.index(self.lines), *self.size, groups], dtype=np.int32)
        return Packed(weight.shape, {"weight": values}, {"geometry": geometry, **pack_places(kept.ravel())})

    @staticmethod
    def unpack(packed: Packed) -> np.ndarray:
        lines, rows, columns, groups = (int(number) for number in packed.index["geometry"])
        structure = Crossbar(1, LINES[lines], (rows, columns))
        weight = np.zeros(packed.shape, dtype=np.float32)
        shape = structure._totals(_matrix(weight, groups)).shape
        kept = unpack_places(packed.index, int(np.prod(shape))).reshape(shape)
        weight.ravel()[structure._cells(kept, packed.shape, groups)] = packed.data["weight"]
        return weight

    def _run(self) -> tuple[int, int]:
        """How many cells a line takes, and along which axis of (groups, columns, rows)."""
        return (self.size[1], 1) if self.lines == "rows" else (self.size[0], 2)

    def _totals(self, matrix: np.ndarray) -> np.ndarray:
        """Sums over lines: rows as (groups, crossbars across, rows of the matrix), columns as (groups, columns of the
        matrix, crossbars down)."""
        return run_sums(matrix, *self._run())

    def _occupied(self, weight: np.ndarray, groups: int) -> np.ndarray:
        """The lines with a weight that is not zero, as `_totals` has them."""
        return self._totals(_matrix(weight, groups) != 0) > 0

    def _spread(self, of_lines: np.ndarray, shape: tuple[int, ...], groups: int) -> np.ndarray:
        """What stands for each line, for each weight."""
        size, axis = self._run()
        cells = (groups, shape[0] // groups, int(np.prod(shape[1:])))[axis]
        return np.repeat(of_lines, size, axis=axis).take(np.arange(cells), axis=axis).reshape(shape)

    def _cells(self, kept: np.ndarray, shape: tuple[int, ...], groups: int) -> np.ndarray:
        """The flat places of the weights of the chosen lines, line by line."""
        places = np.flatnonzero(self._spread(kept, shape, groups))
        number = self._spread(np.arange(kept.size).reshape(kept.shape), shape, groups).ravel()[places]
        return places[np.argsort(number, kind="stable")]


def _matrix(weight: np.ndarray, groups: int) -> np.ndarray:
    """A weight as (groups, filters of a group, inputs of a group): columns of the crossbars first, so that nothing is
    moved."""
    return weight.reshape(groups, len(weight) // groups, -1)
